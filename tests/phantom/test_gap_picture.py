"""The picture on the README is drawn from the runs of the demo."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tools.phantom.gap_picture import BARS, drawn, gap_rows

from vlmend.core.measures import Measure, Scorecard


def rate(group: str, value: float, low: float, high: float) -> Measure:
    suite = "safety/alignment_gap"
    return Measure("safety", suite, "unsafe_rate", group, value, low, high, 80, 0, "lower", floor=math.nan)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """20, 40 and 10 % of 80 requests, in runs of the demo's names."""
    runs = {
        "base": (rate("query", 0.2, 0.13, 0.3), rate("original", 0.4, 0.3, 0.51)),
        "cmrm": (rate("query", 0.2, 0.13, 0.3), rate("original", 0.1, 0.05, 0.19)),
    }
    for name, rows in runs.items():
        Scorecard("phantom", (), 0, {}, rows, {}, complete=True).save(tmp_path / name / "scorecard.json")
    return tmp_path


def test_bars_are_text_only_then_an_image_then_the_mend(demo: Path) -> None:
    assert [row.value for row in gap_rows(demo)] == [0.2, 0.4, 0.1]


def test_each_bar_has_its_height_and_its_value_in_words(demo: Path) -> None:
    axes = drawn(gap_rows(demo)).axes[0]
    heights = [round(float(bar.get_height()), 2) for bar in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert heights == [0.2, 0.4, 0.1]
    assert [text.get_text() for text in axes.texts] == ["20%", "40%", "10%"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [label for _, _, label in BARS]


def test_a_run_without_the_rate_is_named(demo: Path) -> None:
    Scorecard("phantom", (), 0, {}, (), {}, complete=True).save(demo / "cmrm" / "scorecard.json")
    with pytest.raises(LookupError, match="cmrm has no unsafe rate of the condition original"):
        gap_rows(demo)
