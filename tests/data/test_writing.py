"""What is written reads again as the same set; a report tells what a step did; nothing is left half done."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.contracts import Changed, DataEdit, Dropped
from vlmend.core.conversation import Turn
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.data.layouts import read_data
from vlmend.data.sources import read_jsonl
from vlmend.data.writing import write_data
from vlmend.errors import BadData, RunProblem, UsageError

PICTURES = [blank_image(side) for side in (4, 5, 6)] + [Image(b"no picture", "n"), Image(b"", "e")]
WORDS = st.text(max_size=12)
PLACES = st.lists(st.integers(0, len(PICTURES) - 1), max_size=3)
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), WORDS, PLACES), max_size=2)
FIELDS = st.tuples(
    WORDS, st.sampled_from(["harmful", "benign", None]), WORDS, PLACES, st.none() | WORDS, st.lists(WORDS, max_size=2),
    st.dictionaries(WORDS, WORDS, max_size=2), TURNS,
)  # fmt: skip
"""Prompt, label, group, pictures, caption, answers, attributes, turns: plain values, examples are made in the test."""

ROWS = st.dictionaries(WORDS, FIELDS, min_size=1, max_size=4)


def pictures(places: list[int]) -> tuple[Image, ...]:
    return tuple(PICTURES[k] for k in places)


def example(name: str, fields: Any) -> Example:
    prompt, label, group, places, caption, answers, attributes, turns = fields
    first, *more = pictures(places) or (None,)
    made = tuple(Turn(role, text, pictures(shown)) for role, text, shown in turns)
    asked = prompt if places else f"{prompt}?"
    return Example(name, asked, label, group, first, caption, tuple(answers), attributes, tuple(more), made)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(ROWS, WORDS, WORDS, st.lists(WORDS, max_size=2), st.booleans())
def test_write_then_read_is_the_same_set(
    rows: dict[str, Any], name: str, licence: str, notes: list[str], test_only: bool
) -> None:
    examples = tuple(example(key, fields) for key, fields in rows.items())
    data = Dataset(name, examples, licence, tuple(notes), test_only)
    with tempfile.TemporaryDirectory() as folder:
        write_data(data, Path(folder) / "out")
        read = read_data(str(Path(folder) / "out"))
        assert read.digest == data.digest
        assert replace(read, examples=(), notes=()) == replace(data, examples=(), notes=())
        lent = any(row.label == "harmful" and row.image is None for row in examples)  # a note of its own
        assert (read.notes[: len(notes)], len(read.notes)) == (data.notes, len(notes) + lent)
        assert json.loads((Path(folder) / "out" / "data.json").read_text("utf-8"))["digest"] == data.digest


def pictured(count: int = 3) -> Dataset:
    rows = tuple(Example(f"r{k}", f"question {k}", "benign", "g", blank_image(4 + k)) for k in range(count))
    return Dataset("set", rows, "MIT", ("A note.",))


def test_the_file_of_rows_is_read_with_what_is_said_beside_it(tmp_path: Path) -> None:
    data = replace(pictured(), test_only=True)
    write_data(data, tmp_path / "out")
    read = read_data(str(tmp_path / "out" / "data.jsonl"))
    assert (read.name, read.licence, read.notes, read.test_only) == ("set", "MIT", ("A note.",), True)


def test_a_picture_is_written_once_byte_for_byte_under_its_digest(tmp_path: Path) -> None:
    image = blank_image(4)
    twice = Dataset("set", tuple(Example(name, "q", image=image) for name in "ab"))
    write_data(twice, tmp_path / "out")
    files = list((tmp_path / "out" / "images").iterdir())
    assert [file.name for file in files] == [f"{image.digest[:32]}.png"]
    assert files[0].read_bytes() == image.content


def test_a_picture_that_is_not_there_yet_keeps_its_path(tmp_path: Path) -> None:
    data = Dataset("set", (Example("a", "q", image=Image.from_path(tmp_path / "later.png")),))
    write_data(data, tmp_path / "out")
    (tmp_path / "later.png").write_bytes(blank_image(7).content)
    image = read_data(str(tmp_path / "out")).examples[0].image
    assert image is not None
    assert image.decode().size == (7, 7)


def edited() -> DataEdit:
    before = pictured().examples
    after = replace(before[1], prompt="question one", attributes={"k": "v"})
    return DataEdit(
        Dataset("set-step", (before[0], after)),
        (Changed(before[1], after, "spelled out: a digit"),),
        (Dropped(before[2], "duplicate: of r0"),),
        {"groups": [{"group": "g", "before": 3, "after": 2, "share": 2 / 3}]},
    )


def test_the_report_says_what_was_kept_changed_and_dropped_and_why(tmp_path: Path) -> None:
    edit = edited()
    write_data(edit.data, tmp_path / "out", edit)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["kept"] == 1
    assert report["dropped"] == [{"id": "r2", "why": "duplicate: of r0"}]
    assert report["changed"][0]["fields"]["prompt"] == {"before": "question 1", "after": "question one"}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "1 kept, 1 changed, 1 dropped." in page
    assert "| g | 3 | 2 | 0.667 |" in page
    assert "| r2 | duplicate: of r0 |" in page
    assert "question one" not in page


def test_a_folder_with_other_data_is_refused_and_the_same_data_is_no_change(tmp_path: Path) -> None:
    write_data(pictured(), tmp_path / "out")
    written = (tmp_path / "out" / "data.jsonl").stat().st_mtime_ns
    write_data(pictured(), tmp_path / "out")
    assert (tmp_path / "out" / "data.jsonl").stat().st_mtime_ns == written
    with pytest.raises(UsageError, match="holds other data"):
        write_data(pictured(2), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other data"):
        write_data(pictured(), tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunProblem, match="No space left on device"):
        write_data(pictured(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_rows_that_would_not_read_again_are_refused_at_once(tmp_path: Path) -> None:
    rows = (Example("a", "", "harmful"), Example("b"), Example("c", "q"))
    with pytest.raises(BadData, match=r"a: prompt: empty.*; b: row: no prompt"):
        write_data(Dataset("set", rows), tmp_path / "out")
    with pytest.raises(BadData, match="it has no rows"):
        write_data(Dataset("set", ()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_further_images_without_a_first_and_attributes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {}
    rows = (Example("a", "q", more_images=(PICTURES[0],)), Example("b", "q", attributes=attributes))
    attributes["age"] = 3  # after types are checked
    with pytest.raises(BadData, match=r"a: more_images without an image.*; b: attributes\.age: .*valid string"):
        write_data(Dataset("set", rows), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["data.jsonl", "images"])
def test_what_was_changed_since_it_was_written_is_told_and_put_right_by_writing_it_again(
    tmp_path: Path, part: str
) -> None:
    data = Dataset("own", (Example("1", "look", "benign", image=noise_image(8, 3)),))
    write_data(data, tmp_path / "out")
    file = tmp_path / "out" / part
    file = next(file.iterdir()) if file.is_dir() else file
    held = bytearray(file.read_bytes())
    place = held.index(b"look") if part == "data.jsonl" else len(held) // 2
    held[place] ^= 1
    file.write_bytes(held)
    with pytest.raises(BadData, match=f"{part}.* in .*out is not as it was written"):
        read_jsonl(tmp_path / "out")
    write_data(data, tmp_path / "out")
    assert read_jsonl(tmp_path / "out").digest == data.digest


def test_a_set_written_before_its_words_had_a_digest_is_the_same_set(tmp_path: Path) -> None:
    data = Dataset("own", (Example("1", "look", "benign"),))
    write_data(data, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "data.json").read_text())
    del said["words"]
    (tmp_path / "out" / "data.json").write_text(json.dumps(said))
    write_data(data, tmp_path / "out")
    assert read_jsonl(tmp_path / "out").digest == data.digest
