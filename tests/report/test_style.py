"""Every variable that pages and figures use is defined on every page, for light and for dark."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from vlmend.core.measures import Measure
from vlmend.report import charts

SHEET = resources.files("vlmend.report").joinpath("style.css").read_text("utf-8")


def of_root(text: str) -> set[str]:
    """Variables of the first `:root` in a text."""
    return set(re.findall(r"(--[a-z0-9-]+):", text.partition(":root")[2].partition("}")[0]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_of_intervals_takes_no_colour_that_a_page_lacks(scheme: str) -> None:
    row = Measure("safety", "safety/some", "rate", "a", 0.5, 0.4, 0.6, 10, 0, "lower")
    drawn = charts.intervals([(f"run {k}", [row]) for k in range(5)])
    used = {name for name in re.findall(r"var\((--[a-z0-9-]+)\)", drawn) if name.startswith("--run")}
    assert len(used) == 5
    known = of_root(SHEET if scheme == "light" else SHEET.partition("prefers-color-scheme:dark")[2])
    assert used <= known
