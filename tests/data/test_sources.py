"""Rows of JSONL: what is legitimate is read, what would be silently wrong is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlmend.core.conversation import Turn
from vlmend.core.examples import Example
from vlmend.core.images import blank_image
from vlmend.data.rows import listed_rows, rows_of
from vlmend.data.sources import read_jsonl
from vlmend.errors import BadData

ASKED: dict[str, Any] = {"prompt": "What is this?", "label": "benign"}


def rows(folder: Path, *given: dict[str, Any], start: str = "", end: str = "\n") -> Path:
    file = folder / "rows.jsonl"
    file.write_bytes((start + "".join(json.dumps(row, ensure_ascii=False) + end for row in given)).encode())
    return file


def one(folder: Path, **row: Any) -> Example:
    return read_jsonl(rows(folder, row)).examples[0]


def refused(folder: Path, **row: Any) -> tuple[str, str]:
    with pytest.raises(BadData) as problem:
        read_jsonl(rows(folder, row))
    return problem.value.message, problem.value.hint


def test_a_label_may_be_absent_or_null(tmp_path: Path) -> None:
    data = read_jsonl(rows(tmp_path, {"prompt": "a"}, {"prompt": "b", "label": None}, {"prompt": "c"} | ASKED))
    assert [example.label for example in data.examples] == [None, None, "benign"]


def test_attributes_turns_and_several_images_are_read(tmp_path: Path) -> None:
    example = one(
        tmp_path, prompt="Which?", images=["a.png", "sub/b.png"], attributes={"age": "20-29"},
        turns=[{"role": "system", "text": "Be brief."}, {"role": "user", "text": "Look.", "images": ["c.png"]}],
    )  # fmt: skip
    assert [image.source for image in example.images] == [tmp_path / "a.png", tmp_path / "sub" / "b.png"]
    assert example.attributes == {"age": "20-29"}
    assert example.turns[0] == Turn("system", "Be brief.")
    assert example.turns[1].images[0].source == tmp_path / "c.png"


def test_image_comes_before_images(tmp_path: Path) -> None:
    example = one(tmp_path, prompt="p", image="a.png", images=["b.png"])
    assert [image.name for image in example.images] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert read_jsonl(rows(tmp_path, ASKED, start="\ufeff")).examples[0].prompt == ASKED["prompt"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    content = (mark + '{"prompt": "caf\u00e9"}\r\n{"prompt": "two"}\r\n').encode(encoding)
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert [example.prompt for example in read_jsonl(tmp_path / "rows.jsonl").examples] == ["caf\u00e9", "two"]
    (tmp_path / "rows.csv").write_bytes((mark + "id,text\r\n1,caf\u00e9\r\n").encode(encoding))
    assert rows_of(tmp_path / "rows.csv", listed_rows) == [{"id": "1", "text": "caf\u00e9"}]


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes('{"prompt": "caf\u00e9"}'.encode("cp1252"))
    with pytest.raises(BadData, match="cannot be read") as problem:
        read_jsonl(tmp_path / "rows.jsonl")
    assert "UTF-8" in problem.value.hint


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c"], ids=["u2028", "u2029", "nel", "form-feed"])
def test_only_a_line_feed_ends_a_row(tmp_path: Path, mark: str) -> None:
    data = read_jsonl(rows(tmp_path, {"prompt": f"a{mark}b"}, {"prompt": "c"}, end="\r\n"))
    assert [example.prompt for example in data.examples] == [f"a{mark}b", "c"]


def test_a_data_uri_is_an_image(tmp_path: Path) -> None:
    image = one(tmp_path, **ASKED, image=blank_image(6).to_data_uri()).image
    assert image is not None
    assert image.decode().size == (6, 6)
    message, hint = refused(tmp_path, **ASKED, image="data:image/png;base64,!")
    assert message.startswith(f"{tmp_path / 'rows.jsonl'} has rows that cannot be used (line 1: row-1: the data URI")
    assert "base64" in hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_path", "a.png"), ("img", "a"), ("Picture", "a.webp"), ("photo", ["a.jpg"]), ("IMAGE", "a.png"),
        ("image_1", {"bytes": "x", "path": "a"}), ("file_name", "000012.jpg"), ("url", "data:image/png;base64,AAAA"),
        ("imge", "a"), ("iamge", "a"), ("immage", "a"), ("pictrue", "a"), ("Image_fle", "a.tif"),
    ],
)  # fmt: skip
def test_a_picture_under_another_name_is_refused_by_that_name(tmp_path: Path, field: str, value: Any) -> None:
    message, hint = refused(tmp_path, **ASKED, **{field: value})
    assert f"line 1: {field}: a picture under this name is not read" in message
    assert f'Rename "{field}" to "image"' in hint


def test_other_fields_are_ignored_where_the_picture_is_there_or_there_is_none(tmp_path: Path) -> None:
    assert one(tmp_path, **ASKED, image="a.png", image_path="elsewhere/a.png").image is not None
    assert one(tmp_path, **ASKED, source="a book", image_id=7, image_path=None).image is None
    assert one(tmp_path, **ASKED, image_id="7", usage="x", page="3", message="m", capture="c").image is None


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        (ASKED | {"images": "a.png"}, "images: Input should be a valid", '"images": [path, ...]'),
        (ASKED | {"image": ["a.png"]}, "image: Input should be a valid string", '"images": [path, ...]'),
        (ASKED | {"image": ""}, 'image: "" is no path', "null"),
        (ASKED | {"attributes": {"age": 3}}, "attributes.age: Input should be a valid string", "quotation marks"),
        (ASKED | {"label": "Harmful"}, "label: Input should be 'harmful' or 'benign'", "absent"),
        ({"prompt": "", "label": "harmful"}, "prompt: empty, and there is no image", "take the row out"),
        ({"prompt": " \n ", "label": "harmful"}, "prompt: empty, and there is no image", "take the row out"),
        ({"prompt": "", "label": "benign", "caption": "a cat"}, "prompt: empty", "take the row out"),
        ({"label": "benign", "image": "a.png"}, "prompt: missing", "says what is asked"),
        (ASKED | {"image": "https://example.org/a.png"}, "image: addresses are not fetched", "name their files"),
        (ASKED | {"images": ["a.png", "FILE:///a.png"]}, "image: addresses are not fetched", "name their files"),
        ({"messages": "hi"}, "row: no prompt, image, caption, turns or attributes", "absent"),
    ],
)
def test_a_row_that_would_be_misread_is_refused(tmp_path: Path, row: dict[str, Any], message: str, hint: str) -> None:
    told = refused(tmp_path, **row)
    assert f"line 1: {message}" in told[0]
    assert hint in told[1]


def test_a_picture_with_its_label_may_ask_by_itself(tmp_path: Path) -> None:
    assert one(tmp_path, prompt="", label="benign", image="a.png").prompt == ""
    assert one(tmp_path, image="a.png", caption="a cat").caption == "a cat"


def test_a_picture_outside_of_the_folder_is_told_from_one_inside(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "out.png", folder / "in.png"):
        blank_image(4).decode().save(place)
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    names = {
        "in.png": False, "sub/../in.png": False, str(folder / "in.png"): False, "nothing.png": False, "nul\0": False,
        "../out.png": True, str(tmp_path / "out.png"): True, "link.png": True,
    }  # fmt: skip
    data = read_jsonl(rows(folder, *(ASKED | {"id": str(k), "image": name} for k, name in enumerate(names))))
    assert [example.images[0].outside for example in data.examples] == list(names.values())


def test_ids_that_occur_twice_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="1 ids occur twice, as 'x'"):
        read_jsonl(rows(tmp_path, ASKED | {"id": "x"}, ASKED | {"id": "x"}, ASKED | {"id": "y"}))
