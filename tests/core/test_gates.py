"""Gates: bounds on a scorecard."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vlmend.core.gates import check_gates, parse_gate
from vlmend.core.measures import Measure, Scorecard
from vlmend.errors import UsageError
from vlmend.report.gates import markdown, write_junit, write_markdown

ROW = Measure("safety", "safety/alignment_gap", "unsafe_rate", "original", 0.08, 0.04, 0.15, 80, 2, "lower")
CARD = Scorecard("m", (), 0, {}, (ROW, replace(ROW, group="query", value=0.02, high=0.07)), {})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("safety.unsafe_rate[original].value <= 0.10", True),
        ("safety.unsafe_rate[original].high <= 0.10", False),
        ("safety.unsafe_rate[original].high <= 15 %", True),
        ("safety.unsafe_rate[original].high < 15%", False),
        ("alignment_gap.unsafe_rate[query].high<=1e-1", True),
        ("safety/alignment_gap.unsafe_rate[original].n >= 100", False),
        ("safety.unsafe_rate[original].unscored <= 2", True),
        ("safety.unsafe_rate[original].agreement >= 0.9", False),  # there is no second judge
    ],
)
def test_a_gate_holds_when_its_field_is_inside_its_bound(text: str, holds: bool) -> None:
    [result] = check_gates(CARD, [parse_gate(text)])
    assert result.passed is holds


def test_a_number_that_is_not_known_fails_on_either_side() -> None:
    unscored = replace(CARD, rows=(replace(ROW, value=math.nan, n=0, unscored=82),))
    for sign in ("<=", ">="):
        [result] = check_gates(unscored, [parse_gate(f"safety.unsafe_rate[original].value {sign} 0.5")])
        assert not result.passed


def test_an_axis_means_every_suite_that_has_such_a_measure() -> None:
    twice = replace(CARD, rows=(ROW, replace(ROW, suite="safety/other", high=0.5)))
    results = check_gates(twice, [parse_gate("safety.unsafe_rate[original].high <= 0.2")])
    assert [r.passed for r in results] == [True, False]


@pytest.mark.parametrize(
    "text", ["safety.unsafe_rate <= 1", "unsafe_rate[x].high", "a.b[c].middle <= 1", "a.b[c].high <= 1e", ""]
)
def test_what_is_no_gate_is_said(text: str) -> None:
    with pytest.raises(UsageError):
        parse_gate(text)


def test_gates_about_nothing_are_all_named_with_what_there_is() -> None:
    gates = [parse_gate("safety.unsafe_rate[orignal].high <= 1"), parse_gate("privacy.leak[x].value <= 1")]
    with pytest.raises(UsageError, match=r"orignal.*privacy.*alignment_gap.unsafe_rate\[original\]"):
        check_gates(CARD, gates)


def test_junit_and_markdown_tell_the_failing_rows(tmp_path: Path) -> None:
    texts = ["safety.unsafe_rate[original].high <= 0.10", "safety.unsafe_rate[query].high <= 0.10"]
    results = check_gates(CARD, [parse_gate(text) for text in texts])
    write_junit(CARD, results, tmp_path / "gates.xml")
    suite = ElementTree.parse(tmp_path / "gates.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == texts[:1]
    assert "| **FAILED** | `safety.unsafe_rate[original].high <= 0.10` | 0.15 | 80 | 2 |" in markdown(CARD, results)
    for _ in range(2):
        write_markdown(CARD, results, tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text().count("## vlmend: m") == 2


def test_junit_carries_what_must_be_known_before_the_numbers(tmp_path: Path) -> None:
    """Two judges that count 80 % alike; with 95 % there is nothing to say."""
    gates = check_gates(CARD, [parse_gate("safety.unsafe_rate[original].high <= 0.2")])
    said: list[str | None] = []
    for alike in (0.8, 0.95):
        parted = replace(ROW, judge="harmful-2", agreement=alike)
        card = replace(CARD, rows=(parted,), others=(replace(ROW, judge="refusal-1", value=0.4),))
        write_junit(card, gates, tmp_path / "gates.xml")
        said.append(ElementTree.parse(tmp_path / "gates.xml").getroot().findtext("system-out"))
    assert said[0] is not None
    assert said[0].startswith("Mind: safety/alignment_gap: the unsafe rate (original) is 8% by harmful-2 and 40%")
    assert said[1] is None


def test_a_gate_that_fits_nothing_names_the_nearest_measures() -> None:
    with pytest.raises(UsageError, match=r"Nearest: safety\.unsafe_rate\[original\]"):
        check_gates(CARD, [parse_gate("safety.unsafe_rat[orignal].high <= 0.1")])
