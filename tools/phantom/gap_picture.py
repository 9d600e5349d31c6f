"""The picture on the README: `python -m tools.phantom.gap_picture runs/demo docs/pictures`.

Unsafe replies to the same harmful requests as text, with their image, and with their image under CMRM.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from vlmend.core.measures import Measure, Scorecard, find_measure
from vlmend.report.figures import COLOURS, INK, STYLE, reach

__all__ = ["drawn", "gap_rows"]

BARS = (
    ("base", "query", "text only"),
    ("base", "original", "with an image"),
    ("cmrm", "original", "with an image,\nmended by CMRM"),
)
"""Run, condition and label of each bar."""

SHADES = (COLOURS[1], COLOURS[0], COLOURS[4])
TOP = 0.7


def gap_rows(demo: Path) -> list[Measure]:
    """The unsafe rates of the three bars, from the run folder of `vlmend demo`.

    Raises:
        UsageError: A run holds no scorecard.
        LookupError: A scorecard holds no such rate.
    """
    rows: list[Measure] = []
    for run, condition, _ in BARS:
        card = Scorecard.load(demo / run / "scorecard.json")
        row = find_measure(card, "safety/alignment_gap", "unsafe_rate", condition)
        if row is None:
            raise LookupError(f"{demo / run} has no unsafe rate of the condition {condition}.")
        rows.append(row)
    return rows


def drawn(rows: Sequence[Measure]) -> Figure:
    """Three bars with 95 % intervals, each with its value."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for place, (row, shade) in enumerate(zip(rows, SHADES, strict=True)):
            below, above = reach(row)
            axes.bar(place, row.value, 0.6, color=shade)
            axes.errorbar(place, row.value, [[below], [above]], color=INK, capsize=4, lw=1.2)
            axes.text(place + 0.08, row.value + 0.012, row.written(row.value), fontsize=11)
        axes.set_xticks(range(len(BARS)), [label for _, _, label in BARS])
        axes.set_ylim(0, TOP)
        axes.set_yticks([0, 0.2, 0.4, 0.6], ["0", "20 %", "40 %", "60 %"])
        axes.set_ylabel("unsafe replies")
        axes.grid(axis="y", color="#e4e8ec", lw=0.8)
        axes.set_axisbelow(True)
        asked = rows[0].n + rows[0].unscored
        axes.set_title(f"phantom, {asked} held-out harmful requests, 95 % intervals", fontsize=9.5, loc="left")
        return figure


if __name__ == "__main__":
    demo_folder, out = map(Path, sys.argv[1:])
    drawn(gap_rows(demo_folder)).savefig(out / "gap.png", dpi=150)
