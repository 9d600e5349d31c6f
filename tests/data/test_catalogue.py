"""Adapters are found like plug-ins: ours by their files, those of other packages by entry points."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from vlmend.core.contracts import AbstractMethod
from vlmend.core.conversation import Turn
from vlmend.core.examples import Dataset
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget
from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.catalogue import adapters, listed_adapters
from vlmend.data.layouts import read_data
from vlmend.data.rows import Row, listed_rows, maybe, rows_of, text
from vlmend.errors import NameClash, UsageError
from vlmend.models.vlm import VLM

PACKAGE = """
    from vlmend.data.adapter import Adapter, Draft

    def convert(row, place):
        return [Draft(row["words"], id=row["id"])]

    def made(name):
        return Adapter(name, "utility", "A set", "nobody", "https://example.org", "MIT", ("*.jsonl",), convert,
                       "Make it.", unlabelled=1)

    ONE, CLASH, NONE = made("elsewhere"), (made("one_more"), made("pope")), "no adapter"
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another package with adapters; `installed` says under which entry point."""
    (tmp_path / "outsider.py").write_text(dedent(PACKAGE))
    monkeypatch.syspath_prepend(str(tmp_path))
    adapters.cache_clear()
    yield tmp_path
    sys.modules.pop("outsider", None)
    adapters.cache_clear()


def installed(folder: Path, entry: str) -> None:
    info = folder / "outsider-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[vlmend.data]\nmine = outsider:{entry}\n")


def test_a_set_of_another_package_is_listed_and_read(outside: Path) -> None:
    installed(outside, "ONE")
    (outside / "rows.jsonl").write_text('{"words": "hello", "id": "a"}\n')
    data = read_data(f"elsewhere:{outside / 'rows.jsonl'}")
    assert [(e.prompt, e.label) for e in data.examples] == [("hello", None)]
    assert {"elsewhere": "1 without label"}.items() <= {row["name"]: row["rows"] for row in listed_adapters()}.items()


def test_two_sets_of_one_name_are_an_error_that_names_both_places(outside: Path) -> None:
    installed(outside, "CLASH")
    with pytest.raises(NameClash, match=r"pope: in outsider:CLASH and in vlmend.data.adapters.utility:ADAPTERS"):
        adapters()


def test_an_entry_point_that_gives_something_else_is_refused(outside: Path) -> None:
    installed(outside, "NONE")
    with pytest.raises(UsageError, match="outsider:NONE holds no data adapters"):
        adapters()


def _dialogue(row: Row, place: Place) -> list[Draft]:
    return [
        Draft(
            text(row, "q"), id=text(row, "id"), pictures=(text(row, "first"),), further=((text(row, "second"),),),
            attributes={"group": maybe(row, "group")}, turns=(Turn("system", "Be brief."),),
        )
    ]  # fmt: skip


DIALOGUE = Adapter(
    "dialogue", "utility", "Dialogues", "nobody", "https://example.org", "MIT", ("*.jsonl",), _dialogue, "Make it.",
    pictures="needed", unlabelled=None, test_only=True,
)  # fmt: skip


def test_a_set_may_have_attributes_turns_and_several_pictures_and_no_labels(tmp_path: Path) -> None:
    row = {"q": "Which?", "id": "a", "first": "1.png", "second": "2.png", "group": "g"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    for side, name in ((8, "1.png"), (9, "2.png")):
        (tmp_path / name).write_bytes(blank_image(side).content)
    data = DIALOGUE.read(tmp_path / "rows.jsonl")
    one = data.examples[0]
    assert (one.label, one.attributes, one.turns) == (None, {"group": "g"}, (Turn("system", "Be brief."),))
    assert [image.decode().size for image in one.images] == [(8, 8), (9, 9)]
    assert data.test_only
    (tmp_path / "2.png").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of 2 pictures of Dialogues \(first: 2.png\)"):
        DIALOGUE.read(tmp_path / "rows.jsonl")


def test_a_set_for_testing_only_stays_so_beside_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "label": "benign"}\n')
    (tmp_path / "information.csv").write_text("pid,question,image_path\n1,q,images/1.png\n")
    mixed = read_data(f"{tmp_path / 'a.jsonl'} + mossbench:{tmp_path / 'information.csv'}")
    assert mixed.test_only
    assert not read_data(str(tmp_path / "a.jsonl")).test_only


class Nothing(AbstractMethod[ChatTarget]):
    """A method that would fit on anything."""

    name, source, needs, passes, data = "nothing", "-", "replies", "none", "none"

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        raise AssertionError("it was fitted")


def test_no_method_is_fitted_on_a_set_for_testing_only(tiny: VLM) -> None:
    with pytest.raises(UsageError, match="mossbench is for testing only, so nothing is not fitted on it"):
        Nothing().fit(tiny, Dataset("mossbench", (), test_only=True), seed=0)


def test_a_line_separator_inside_a_row_ends_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "a\u2028b"}\n{"q": "c"}\n', "utf-8")
    assert [row["q"] for row in rows_of(tmp_path / "a.jsonl", listed_rows)] == ["a\u2028b", "c"]


def test_a_csv_field_may_be_of_any_length(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"q\n{'x' * 140_000}\n")
    assert len(rows_of(tmp_path / "a.csv", listed_rows)[0]["q"]) == 140_000
