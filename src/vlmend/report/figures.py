"""One function a figure; each returns an SVG that stands alone."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlmend.core.measures import Measure, Point

__all__ = ["COLOURS", "GRID", "INK", "STYLE", "bars", "dose", "reach", "share_axis", "states", "svg", "verbatim"]

COLOURS = ("#b3424a", "#2a6f97", "#8d99ae", "#e9a03b", "#5b8c5a")
INK = "#22303c"
EDGE = "#9aa5b1"
GRID = "#e4e8ec"
STYLE: dict[Any, Any] = {
    "font.size": 9.5, "font.family": "sans-serif", "axes.edgecolor": EDGE, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "svg.hashsalt": "vlmend", "svg.fonttype": "path",
}  # fmt: skip

HALF, WHOLE = 5.2, 10.8
"""Inches of a figure that shares a row of the page with another, and of one that has the row to itself."""


def bars(groups: Sequence[str], series: Sequence[tuple[str, Sequence[Measure | None]]], label: str) -> str:
    """Grouped bars of a measure with 95 % intervals; one series a run, a thin line at what chance alone would give."""
    labels = [verbatim(group.replace(":", ":\n")) for group in groups]
    letters = max((len(line) for label in labels for line in label.split("\n")), default=0)
    needed = 0.6 + len(groups) * max(0.34 * len(series), 0.08 * letters)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(HALF if needed <= HALF else max(WHOLE, needed), 3.0), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(series)
        for k, (name, rows) in enumerate(series):
            colour = COLOURS[k % len(COLOURS)]
            axes.bar(0, 0, color=colour, label=verbatim(name))
            for place, row in enumerate(rows):
                if row is not None and row.n:
                    _bar(axes, place - 0.4 + width * (k + 0.5), width * 0.92, row, colour)
        axes.set_xticks(range(len(groups)), labels)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        if all(row is None or row.unit == "share" for _, rows in series for row in rows):
            share_axis(axes, verbatim(label))
        else:
            axes.axhline(0, color=INK, lw=0.8)
            axes.margins(y=0.15)
            axes.set_ylabel(verbatim(label))
        each = 0.6 + 0.085 * max(len(name) for name, _ in series)  # inches of an entry
        abreast = max(1, min(len(series), int(figure.get_size_inches()[0] / each)))
        figure.legend(loc="outside upper left", ncols=abreast, frameon=False)
        return svg(figure, f"{label} of {', '.join(groups)}")


def dose(series: Sequence[tuple[str, dict[str, float]]]) -> str:
    """|edit| / |state| of every edited layer."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 2.6), layout="constrained")
        axes = figure.subplots()
        for k, (name, doses) in enumerate(series):
            layers = [int(site.split(".")[1]) for site in doses]
            axes.plot(
                layers,
                list(doses.values()),
                "o" + ("-", "--", ":")[k % 3],
                ms=3,
                color=COLOURS[(k + 1) % len(COLOURS)],
                label=name,
            )
        axes.set_xlabel("decoder layer")
        axes.set_ylabel("relative edit norm  |edit| / |state|")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return svg(figure, "relative edit norm of every edited layer")


def states(state_map: dict[str, Any]) -> str:
    """Last-token states of the same requests: text, with image, mended; one basis a layer."""
    kinds = (("text", COLOURS[1], "o"), ("image", COLOURS[0], "^"), ("mended", COLOURS[4], "s"))
    layers: list[dict[str, Any]] = state_map["layers"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(layers), 3.1), layout="constrained")
        for axes, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
            for kind, colour, marker in kinds:
                points = layer[kind]
                axes.scatter(
                    [p[0] for p in points], [p[1] for p in points], s=20, c=colour, marker=marker, alpha=0.6,
                    label=kind, linewidths=0,
                )  # fmt: skip
            axes.set_title(
                f"layer {layer['layer']}\ndistance {layer['before']:.2f} to {layer['after']:.2f}", fontsize=9
            )
            axes.set_xticks([])
            axes.set_yticks([])
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        return svg(figure, "last-token states of text, image and mended requests, by layer")


def reach(row: Measure | Point) -> tuple[float, float]:
    """How far the limits are from the value, below and above; 0 where the interval leaves the value out, or is none."""
    below, above = row.value - row.low, row.high - row.value
    return (below if below > 0 else 0.0), (above if above > 0 else 0.0)


def verbatim(text: str) -> str:
    """Words of a run as they are: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def share_axis(axes: Axes, label: str) -> None:
    """A vertical axis from 0 to 100 %."""
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel(label)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element, the same bytes for the same figure; its ink is the page's, light or dark.

    `--wide` is the width at which its words have the size that they were given; the page may stretch or scroll it.

    Args:
        figure: What is drawn.
        title: What it shows, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    for colour, of_page in ((INK, "currentColor"), (EDGE, "var(--bar)"), (GRID, "var(--line)")):
        text = text.replace(colour, of_page)
    head, _, rest = text[text.index("<svg") :].partition(">")
    said = escape(title, quote=True)
    wide = float(figure.get_size_inches()[0])
    place = f'class="{"half" if wide <= HALF else "whole"}" style="--wide:{wide:.2f}in"'
    return f'{head} {place} role="img" aria-label="{said}"><title>{said}</title>{rest}'


def _bar(axes: Axes, x: float, width: float, row: Measure, colour: str) -> None:
    below, above = reach(row)
    axes.bar(x, row.value, width, color=colour)
    if below or above:
        axes.errorbar(x, row.value, [[below], [above]], color=INK, capsize=2.5, lw=1)
    if not math.isnan(row.floor):
        axes.plot([x - width / 2, x + width / 2], [row.floor] * 2, ":", color=INK, lw=1.2)
    top = min(row.value + above + 0.02, 1.04) if row.unit == "share" else max(row.value + above, 0.0)
    axes.annotate(
        row.written(row.value), (x, top), xytext=(0, 0 if row.unit == "share" else 2), textcoords="offset points",
        ha="center", fontsize=8,
    )  # fmt: skip
