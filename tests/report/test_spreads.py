"""The figure of every sample by group: of means that are told, and not of what is yes or no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browsing import faults
from vlmend.core.measures import Measure, Scorecard
from vlmend.report.charts import spreads
from vlmend.report.compare import Run
from vlmend.report.html import write_report

SUITE = "fairness/made_up"
TITLE = "score, sample by sample"


def of(name: str, values: dict[str, list[float]], says: str = "scores {value}") -> Run:
    """A run with these values of each group."""
    rows = tuple(
        Measure("fairness", SUITE, "score", group, 0.5, 0.4, 0.6, len(own), 0, "higher", unit="share", compared="mean",
                says=says if group == "men" else "")
        for group, own in values.items()
    )  # fmt: skip
    samples: list[dict[str, Any]] = [
        {"id": f"{group}{k}", "group": group, "cluster": f"{group}{k}", "text": "", "values": {"score": value}}
        for group, own in values.items() for k, value in enumerate(own)
    ]  # fmt: skip
    provenance = {"target": "t", "model_digest": "0" * 64, "plan": {"suites": [], "data": None}}
    return Run(name, Scorecard("m", (), 0, {}, rows, provenance), (), {}, None, {SUITE: samples})


def page(tmp_path: Path, *runs: Run) -> str:
    write_report(runs, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_every_group_of_a_told_mean_is_drawn_sample_by_sample(tmp_path: Path, browser: Any) -> None:
    before = of("before", {"men": [0.1, 0.4, 0.9], "women": [0.2, 0.3, 0.7]})
    text = page(tmp_path, before, of("after", {"men": [0.2, 0.4, 0.9]}))
    assert text.count(TITLE) == 1
    assert "score of every sample, men, women" in text
    assert faults(browser, tmp_path / "page.html") == []


@pytest.mark.parametrize(
    "run", [of("a", {"men": [0.0, 1.0, 1.0]}), of("a", {"men": [0.1, 0.4, 0.9]}, says=""), of("a", {"men": []})]
)
def test_yes_or_no_untold_means_and_nothing_are_not(tmp_path: Path, run: Run) -> None:
    assert TITLE not in page(tmp_path, run)


def test_the_same_values_give_the_same_figure() -> None:
    given = (["men", "women"], [("a", [[0.1, 0.5], []])], "score", "number")
    assert spreads(*given) == spreads(*given)  # type: ignore[arg-type]
