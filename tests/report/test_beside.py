"""Samples in pictures side by side: the worst are kept, a page shows the built-in ones, and users' own where asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.shown import keep_shown, worst_first
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Better, Measure
from vlmend.core.samples import read_measured, read_shown
from vlmend.registry import suite
from vlmend.report.beside import hidden, side_by_side
from vlmend.report.compare import read_run
from vlmend.report.html import write_report
from vlmend.testing import tiny_clip

SUITE = "fairness/counterfactual_matching"


def row(better: Better = "lower", floor: float = math.nan) -> Measure:
    return Measure(
        "fairness", SUITE, "bias", "all", 0.0, 0.0, 0.0, 1, 0, better, floor=floor, unit="number", says="is {value}"
    )


def sample(name: str, value: float, group: str = "", **more: Any) -> Sample:
    return Sample(name, group, name, f"pair {name}", {"bias": value}, **more)


@pytest.mark.parametrize(
    ("better", "floor", "first"), [("lower", math.nan, "bac"), ("higher", math.nan, "cab"), ("neither", 0.5, "cba")]
)
def test_the_worst_come_first(better: Better, floor: float, first: str) -> None:
    samples = [sample("a", 0.4), sample("b", 0.7), sample("c", 0.1)]
    assert "".join(one.id for one in worst_first(samples, row(better, floor))) == first


def test_groups_take_turns_and_what_has_no_value_is_left_out() -> None:
    samples = [sample("a", 0.9, "one"), sample("b", 0.8, "one"), sample("c", 0.1, "two"), Sample("d", "two", "d", "")]
    assert [one.id for one in worst_first(samples, row())] == ["a", "c", "b"]


def test_pictures_of_twelve_are_kept_and_a_broken_one_has_no_file(tmp_path: Path) -> None:
    pictures = (("left", noise_image(16, 0)), ("right", Image(b"broken")))
    samples = [sample(str(k), float(k), pictures=pictures) for k in range(14)]
    keep_shown(tmp_path, SUITE, samples, [row()])
    kept = read_shown(tmp_path)[SUITE]
    assert [one["id"] for one in kept] == [str(k) for k in range(13, 1, -1)]
    ((left, file), (right, none)) = kept[0]["pictures"]
    assert (left, right, none) == ("left", "right", None)
    assert (tmp_path / "images" / file).is_file()


def test_suites_are_kept_beside_each_other_and_a_garbled_file_is_no_pictures(tmp_path: Path) -> None:
    one = sample("a", 1.0, pictures=(("x", noise_image(16, 0)),))
    keep_shown(tmp_path, "fairness/one", [one], [row()])
    keep_shown(tmp_path, "fairness/two", [one], [row()])
    assert set(read_shown(tmp_path)) == {"fairness/one", "fairness/two"}
    (tmp_path / "shown.json").write_text('{"fairness/one": [{"id": 3}]}')
    assert read_shown(tmp_path) == {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One of built-in pairs, one of the users' own."""
    folder, target = tmp_path_factory.mktemp("runs"), tiny_clip()
    audit(target, Plan((SUITE,), limit=2), folder / "builtin")
    given = suite(SUITE).sample_data()
    assert isinstance(given, Dataset)
    audit(target, Plan((SUITE,), data=given), folder / "own")
    return folder / "builtin", folder / "own"


def test_numbers_are_stored_without_pictures(runs: tuple[Path, Path]) -> None:
    ((line,),) = ([read["samples"] for read in read_measured(run)] for run in runs[:1])
    assert all("pictures" not in one for one in line)


def test_each_pair_has_both_pictures_its_captions_and_a_value_of_each_run(runs: tuple[Path, Path]) -> None:
    first = read_run(runs[0])
    (rows,) = side_by_side([first, first], users=False).values()
    assert all(len(one.pictures) == 2 and len(one.values) == 2 for one in rows)
    assert rows[0].text == " / ".join(told for told, _ in rows[0].pictures)
    assert all(uri.startswith("data:image/webp;base64,") for _, uri in rows[0].pictures)


def test_users_own_pictures_are_shown_where_asked_only(runs: tuple[Path, Path], tmp_path: Path) -> None:
    own = read_run(runs[1])
    assert side_by_side([own], users=False) == {}
    assert hidden([own]) == len(side_by_side([own], users=True)[SUITE]) > 0
    assert hidden([read_run(runs[0])]) == 0
    for shown in (False, True):
        write_report([own], tmp_path / "page.html", show_text=shown)
        page = (tmp_path / "page.html").read_text("utf-8")
        assert ("data:image/webp" in page) is shown
        assert ("are kept in the run folder" in page) is not shown
