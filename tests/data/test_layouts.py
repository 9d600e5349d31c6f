"""Public layouts: VLSafe with its COCO names, JailbreakLLMs as CSV and as real rows, any JSONL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.data.writing import write_data
from vlmend.errors import BadData, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "jailbreak_llms" / "forbidden_questions.jsonl"


def vlsafe(folder: Path, count: int = 3, missing: int = 0) -> str:
    rows = [{"image_id": 100 + k, "query": f"request {k}", "caption": f"a cat {k}"} for k in range(count)]
    (folder / "examine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for k in range(count - missing):
        (folder / f"{100 + k:012d}.jpg").write_bytes(blank_image(8).content)
    return f"vlsafe:{folder / 'examine.jsonl'}:{folder}"


def test_a_name_that_no_file_can_have_is_a_missing_picture(tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "x" * 400, "text": "Is there a cat?", "label": "no"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadData, match="lacks 1 of 1 pictures"):
        read_data(f"pope:{tmp_path / 'rows.jsonl'}:{tmp_path}")


def test_rows_that_borrow_a_picture_are_counted_in_the_notes(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "label": "harmful", "image": "a.png"}, {"prompt": "b", "label": "harmful"}, {"prompt": "c"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_data(str(file))
    assert data.notes == ("1 of 2 harmful rows borrow a built-in picture where one is shown: they have none.",)
    write_data(data, tmp_path / "folder")
    assert read_data(str(tmp_path / "folder")).notes == data.notes
    file.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[2]) + "\n")
    assert read_data(str(file)).notes == ()


def test_vlsafe_rows_get_their_coco_pictures(tmp_path: Path) -> None:
    data = read_data(vlsafe(tmp_path))
    assert [e.prompt for e in data.examples] == ["request 0", "request 1", "request 2"]
    assert all(e.label == "harmful" and e.image is not None and e.caption for e in data.examples)
    assert data.examples[1].image is not None
    assert data.examples[1].image.decode().size == (8, 8)


def test_missing_pictures_are_counted_and_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="lacks 2 of 3 pictures") as problem:
        read_data(vlsafe(tmp_path, missing=2))
    assert "COCO train2017" in problem.value.hint
    with pytest.raises(BadData, match="VLSafe needs the pictures that its rows name"):
        read_data(f"vlsafe:{tmp_path / 'examine.jsonl'}")


def test_forbidden_questions_from_the_published_csv(tmp_path: Path) -> None:
    file = tmp_path / "forbidden_question_set.csv"
    file.write_text(
        "content_policy_id,content_policy_name,q_id,question\n0,Illegal Activity,0,how?\n12,Health,1,why?\n"
    )
    data = read_data(f"jailbreak_llms:{file}")
    assert [(e.prompt, e.group) for e in data.examples] == [("how?", "Illegal Activity"), ("why?", "Health")]
    file.write_text("a,b\n1,2\n")
    with pytest.raises(BadData, match="row 1 has no question"):
        read_data(f"jailbreak_llms:{file}")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark rows are not here")
def test_forbidden_questions_from_real_rows() -> None:
    data = read_data(f"jailbreak_llms:{SHARED}")
    assert len(data.examples) == len(SHARED.read_text().splitlines())
    assert len({e.group for e in data.examples}) == 13


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as problem:
        read_data("nothing:file.json")
    assert "vlsafe" in problem.value.hint
    (tmp_path / "x.jsonl").write_text('{"prompt": "p", "label": "benign"}\n')
    assert read_data(str(tmp_path / "x.jsonl")).examples[0].label == "benign"


def test_several_sets_are_one_in_turns(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 1)):
        rows = [{"id": f"r{k}", "prompt": f"{name} {k}", "label": "benign", "category": "x"} for k in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = read_data(f"{tmp_path / 'a.jsonl'} + {tmp_path / 'b.jsonl'}")
    assert both.name == "a+b"
    assert [(e.id, e.group) for e in both.examples] == [
        ("a/r0", "a: x"), ("b/r0", "b: x"), ("a/r1", "a: x"), ("a/r2", "a: x"),
    ]  # fmt: skip
    with pytest.raises(BadData, match="named twice"):
        read_data(f"{tmp_path / 'a.jsonl'} + {tmp_path / 'a.jsonl'}")


def test_joined_sets_keep_the_links_of_what_was_made_of_what(tmp_path: Path) -> None:
    """A row made of one of its own set, an attacked one that kept the id of a clean one, and one made of a lost row."""
    shifted = [{"id": "x", "prompt": "a"}, {"id": "x@grey", "prompt": "a", "attributes": {"of": "x"}}]
    attacked = [
        {"id": "x", "prompt": "a", "attributes": {"of": "x"}},
        {"id": "y", "prompt": "b", "attributes": {"of": "gone"}},
    ]
    for name, rows in (("clean", shifted), ("adv", attacked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    joined = read_data(f"{tmp_path / 'clean.jsonl'} + {tmp_path / 'adv.jsonl'}")
    links = {row.id: row.attributes.get("of", "") for row in joined.examples}
    assert links == {"clean/x": "", "clean/x@grey": "clean/x", "adv/x": "clean/x", "adv/y": "adv/gone"}


def adversarial(name: str, attack: str, answers: dict[str, str]) -> list[dict[str, object]]:
    """Rows as an attack leaves them: of the same id, with a link to it."""
    told = {"attack": attack, "epsilon": "0.02", "note": name}
    return [{"id": k, "answers": [a], "attributes": {**told, "of": k}} for k, a in answers.items()]


def written(folder: Path, name: str, rows: list[dict[str, object]]) -> str:
    folder.mkdir()
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / f"{name}.jsonl")


def test_several_attacks_on_one_set_are_joined_and_keep_their_links(tmp_path: Path) -> None:
    """Two of one name, and a third: all lead to the clean row, not to each other."""
    answers = {"x": "cat", "y": "dog"}
    clean = written(
        tmp_path / "0", "d", [{"id": k, "prompt": "", "caption": "c", "answers": [a]} for k, a in answers.items()]
    )
    made = [
        written(tmp_path / "1", "d-pgd", adversarial("weak", "pgd", answers)),
        written(tmp_path / "2", "d-pgd", adversarial("strong", "pgd", answers)),
        written(tmp_path / "3", "d-apgd", adversarial("worst", "pgd+apgd", answers)),
    ]
    joined = read_data(" + ".join([*made, clean]))
    assert joined.name == "d-pgd+d-pgd 2+d-apgd+d"
    assert {row.id for row in joined.examples if row.id.endswith("x")} == {"d-pgd/x", "d-pgd 2/x", "d-apgd/x", "d/x"}
    assert {row.attributes["of"] for row in joined.examples if row.attributes and row.id.endswith("x")} == {"d/x"}
    without = read_data(" + ".join(made))
    assert {row.attributes["of"] for row in without.examples} == {"d/x", "d/y"}
    with pytest.raises(BadData, match="named twice"):
        read_data(f"{made[0]} + {made[0]}")


def test_attacks_on_two_sets_of_one_name_are_not_linked(tmp_path: Path) -> None:
    """Both sets are called d, and their row x is not the same thing."""
    one = written(tmp_path / "1", "d-pgd", adversarial("a", "pgd", {"x": "cat"}))
    other = written(tmp_path / "2", "d-apgd", adversarial("b", "apgd", {"x": "dog"}))
    joined = read_data(f"{one} + {other}")
    assert [row.attributes["of"] for row in joined.examples] == ["d-pgd/x", "d-apgd/x"]
