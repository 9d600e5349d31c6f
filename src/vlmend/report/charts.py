"""Figures of studies and runs: sweeps, layer curves, anchor sizes, depth profiles, Pareto fronts, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vlmend.core.measures import Curve, Measure, Unit
from vlmend.report.figures import COLOURS, GRID, HALF, INK, STYLE, WHOLE, reach, share_axis, svg, verbatim

__all__ = [
    "depth",
    "front",
    "heat",
    "heat_figure",
    "intervals",
    "layers",
    "lines",
    "lines_figure",
    "sizes",
    "spreads",
    "sweep",
]

MARKERS = "os^DvP*"
STROKES = ("-", "--", "-.", ":")
ACROSS = 4
"""Panels side by side."""
TITLE = 32
"""Letters in a line of a panel's title."""
LABEL_HEIGHTS = (0.012, -0.036, 0.05, -0.07, 0.088, -0.104)
"""How far a label is above its point, in the units of the axes."""

HEAT = "Blues"
"""Colours of a matrix, from nothing to all."""

MEASURES = (
    ("unsafe", "harmful answered", COLOURS[0]),
    ("lookalike", "over-refusal, look-alikes", COLOURS[3]),
    ("ordinary", "over-refusal, ordinary", COLOURS[2]),
    ("naming", "pictures named", COLOURS[1]),
)


def sweep(rows: Sequence[dict[str, Any]], levels: Sequence[str]) -> str:
    """Every measure against the strength, one panel a level; bands are 95 % intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(levels), 3.3), layout="constrained")
        for axes, level in zip(figure.subplots(1, len(levels), squeeze=False)[0], levels, strict=True):
            here = [row for row in rows if row["level"] == level]
            strengths = [row["alpha"] for row in here]
            for key, label, colour in MEASURES:
                _band(axes, strengths, [row[key] for row in here], label, colour)
            for key, colour in (("unsafe_text", COLOURS[0]), ("lookalike_text", COLOURS[3])):
                axes.axhline(here[0][key]["value"], color=colour, lw=0.9, ls=":")
            axes.set_title(f"{level} level", fontsize=9.5)
            axes.set_xlabel("alpha (dotted: the model's own rate on text)")
            share_axis(axes, "")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
        return svg(figure, "every measure against the strength of the mend")


def layers(part: dict[str, Any]) -> str:
    """Unsafe replies with one layer alone, the layers up to it, the layers from it on."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 3.1), layout="constrained")
        axes = figure.subplots()
        for kind, colour in (("alone", COLOURS[1]), ("prefix", COLOURS[3]), ("suffix", COLOURS[4])):
            rows = [row for row in part["rows"] if row["kind"] == kind]
            label = {"alone": "this layer alone", "prefix": "layers up to it", "suffix": "layers from it on"}[kind]
            _band(axes, [row["layer"] for row in rows], [row["unsafe"] for row in rows], label, colour)
        axes.axhline(part["base"]["unsafe"]["value"], color=COLOURS[0], lw=1, ls=":", label="no mend")
        axes.set_xlabel("decoder layer")
        share_axis(axes, "harmful answered")
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
        return svg(figure, "unsafe replies by edited layers")


def sizes(rows: Sequence[dict[str, Any]]) -> str:
    """Unsafe replies, and the cosine with the shift of all anchors, against the number of anchors."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 3.0), layout="constrained")
        axes = figure.subplots()
        counts = [row["n"] for row in rows]
        _band(axes, counts, [row["unsafe"] for row in rows], "harmful answered", COLOURS[0])
        axes.plot(counts, [row["cosine"] for row in rows], "s--", ms=3.5, color=COLOURS[1], label="cosine with all")
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("calibration requests")
        share_axis(axes, "")
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return svg(figure, "unsafe replies by size of the calibration set")


def depth(rows: Sequence[dict[str, Any]]) -> str:
    """Distance to the text states, probe AUC and refusal margin of every layer, before and after."""
    panels = (("distance", "distance of centres"), ("auc", "probe AUC, text or not"), ("margin", "refusal margin"))
    shades = {"text": COLOURS[1], "image": COLOURS[0], "dataset": COLOURS[4], "sample": COLOURS[3]}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.0), layout="constrained")
        for axes, (key, label) in zip(figure.subplots(1, 3), panels, strict=True):
            for name in rows[0][key]:
                values = [row[key][name] for row in rows]
                axes.plot([row["layer"] for row in rows], values, color=shades[name], lw=1.4, label=name)
            axes.set_title(label, fontsize=9.5)
            axes.set_xlabel("decoder layer")
        figure.legend(*figure.axes[2].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
        return svg(figure, "distance, probe AUC and refusal margin of every layer")


def front(rows: Sequence[dict[str, Any]]) -> str:
    """Safety against its price, one point a defence; the Pareto front is joined."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 4.6), layout="constrained")
        axes = figure.subplots()
        for row in rows:
            x, y = row["unsafe"], row["lookalike"]
            colour = COLOURS[4] if row["front"] else COLOURS[2]
            axes.errorbar(
                x["value"], y["value"], [[y["value"] - y["low"]], [y["high"] - y["value"]]],
                [[x["value"] - x["low"]], [x["high"] - x["value"]]], fmt="o", ms=5, color=colour, elinewidth=0.5,
            )  # fmt: skip
        text = rows[0]["unsafe_text"]["value"], rows[0]["lookalike_text"]["value"]
        named = [(r["unsafe"]["value"], r["lookalike"]["value"], r["name"]) for r in rows]
        _label(axes, [*named, (*text, "text-only")])
        best = sorted((r["unsafe"]["value"], r["lookalike"]["value"]) for r in rows if r["front"])
        axes.plot([x for x, _ in best], [y for _, y in best], color=COLOURS[4], lw=1)
        axes.plot(*text, "*", ms=12, color=COLOURS[1])
        axes.set_xlabel("unsafe replies to harmful requests with an image")
        axes.set_ylabel("over-refusal on look-alikes with an image")
        axes.set_xlim(-0.02, 1.0)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        return svg(figure, "unsafe replies against over-refusal, a point a defence")


def intervals(series: Sequence[tuple[str, Sequence[Measure]]]) -> str:
    """A dot and its 95 % interval for each number of a suite: a panel a measure, a line a group, a marker a run.

    A thin upright line is what chance alone would give, where that is known.

    The SVG takes its ink from the page (`currentColor`, `--line`, `--run-0` to `--run-4`), so it suits dark and light.
    """
    names = list(dict.fromkeys(row.name for _, rows in series for row in rows))
    groups = list(dict.fromkeys(row.group for _, rows in series for row in rows))
    across, down = min(ACROSS, len(names)), -(-len(names) // ACROSS)
    height = 0.75 + len(groups) * max(0.3, 0.14 * len(series) + 0.12)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * across + 1.6, height * down + 0.3), layout="constrained", facecolor="none")
        panels = figure.subplots(down, across, squeeze=False, sharey=True).flat
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for axes, name in zip(panels, names, strict=False):
            for k, (run, rows) in enumerate(series):
                told = verbatim(run) if rows else "_nolegend_"
                _dots(axes, k, (k + 0.5) / len(series) - 0.5, told, [r for r in rows if r.name == name and r.n], groups)
            axes.set_title(verbatim(fill(name.replace("_", " "), TITLE)), fontsize=9.5)
            axes.set_facecolor("none")
            if all(row.unit == "share" for _, rows in series for row in rows if row.name == name):
                axes.set_xlim(-0.02, 1.02)
                axes.set_xticks([0, 0.5, 1.0], ["0", "50 %", "100 %"])
            axes.set_yticks(range(len(groups)), [verbatim(group) for group in groups])
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.grid(axis="x", color=GRID, lw=0.8)
            axes.set_axisbelow(True)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6, frameon=False)
        drawn = svg(figure, f"{', '.join(names).replace('_', ' ')} of {', '.join(groups)}")
    for k, colour in enumerate(COLOURS):
        drawn = drawn.replace(colour, f"var(--run-{k})")
    return drawn


def lines(series: Sequence[tuple[str, Sequence[Curve]]]) -> str:
    """Curves that share a picture: a colour a run, or a curve where there is one run, and a stroke a curve.

    Upright bars are 95 % intervals.
    """
    with mpl.rc_context(STYLE):
        return svg(lines_figure(series), next(curve.title for _, every in series for curve in every))


def lines_figure(series: Sequence[tuple[str, Sequence[Curve]]]) -> Figure:
    """The figure of `lines`, for a file of its own."""
    curves = [curve for _, every in series for curve in every]
    names = list(dict.fromkeys(curve.name for curve in curves))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(HALF, 3.4), layout="constrained")
        axes = figure.subplots()
        for k, (run, every) in enumerate(series):
            for curve in every:
                place = names.index(curve.name)
                axes.errorbar(
                    [point.x for point in curve.points], [point.value for point in curve.points],
                    yerr=[[reach(point)[side] for point in curve.points] for side in (0, 1)],
                    marker=MARKERS[place % len(MARKERS)], ls=STROKES[place % len(STROKES)], ms=4, lw=1.3,
                    elinewidth=0.9, color=COLOURS[(k if len(series) > 1 else place) % len(COLOURS)],
                    label=verbatim(", ".join(part for part in (run, curve.name) if part)),
                )  # fmt: skip
        _scaled(axes, curves)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return figure


def _scaled(axes: Axes, curves: Sequence[Curve]) -> None:
    """Scales and labels of a picture of curves, all of which have those of the first."""
    first = curves[0]
    axes.set_xlabel(verbatim(first.x))
    if first.scale == "log":
        least = min(min(point.x, point.value) for curve in curves for point in curve.points)
        axes.set(xscale="log", yscale="log", xlim=(least, 1.1), ylim=(least, 1.1), ylabel=verbatim(first.y))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
    elif first.unit == "share":
        share_axis(axes, verbatim(first.y))
    else:
        axes.set(ylim=(0, None), ylabel=verbatim(first.y))
        axes.grid(axis="y", color=GRID, lw=0.8)
        axes.set_axisbelow(True)
    if first.scale == "counts":
        places = sorted({point.x for curve in curves for point in curve.points})
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.3, 1.4 * max(1.0, places[-1]))
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    if any(curve.diagonal for curve in curves):
        low = axes.get_xlim()[0] if first.scale == "log" else 0
        axes.plot([low, 1], [low, 1], ":", lw=0.9, color=INK)
    if any(curve.diagonal for curve in curves) and first.scale == "linear":
        axes.set_xlim(0, 1)


def spreads(
    groups: Sequence[str], series: Sequence[tuple[str, Sequence[Sequence[float]]]], label: str, unit: Unit
) -> str:
    """Every sample of each group as a dot, with a box around the middle half and a line at the median: a colour a run.

    Args:
        groups: Of the samples.
        series: For each run the values of each group, in their order; none where a run has no such group.
        label: What the values are.
        unit: How people read them.
    """
    letters = max(len(line) for group in groups for line in group.replace(":", ":\n").split("\n"))
    needed = 0.8 + len(groups) * max(0.4 * len(series), 0.08 * letters)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(HALF if needed <= HALF else max(WHOLE, needed), 3.0), layout="constrained")
        axes, width = figure.subplots(), 0.8 / len(series)
        for k, (run, every) in enumerate(series):
            colour = COLOURS[k % len(COLOURS)]
            axes.plot([], [], "o", ms=4, color=colour, label=verbatim(run))
            for place, values in enumerate(every):
                _strip(axes, place - 0.4 + width * (k + 0.5), width, values, colour)
        axes.set_xticks(range(len(groups)), [verbatim(group.replace(":", ":\n")) for group in groups])
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.margins(y=0.08)
        if unit == "share":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylabel(verbatim(label))
        axes.grid(axis="y", color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return svg(figure, f"{label} of every sample, {', '.join(groups)}")


def heat(rows: Sequence[tuple[str, Sequence[float]]], columns: Sequence[str], title: str) -> str:
    """A matrix of shares, a named line each; NaN stays empty."""
    with mpl.rc_context(STYLE):
        return svg(heat_figure(rows, columns), title)


def heat_figure(rows: Sequence[tuple[str, Sequence[float]]], columns: Sequence[str]) -> Figure:
    """The figure of `heat`, for a file of its own."""
    with mpl.rc_context(STYLE):
        widest = max(len(name) for name in columns)
        figure = Figure(
            figsize=(2.6 + len(columns) * max(0.9, 0.085 * widest), 0.9 + 0.42 * len(rows)), layout="constrained"
        )
        axes = figure.subplots()
        axes.imshow([list(values) for _, values in rows], cmap=HEAT, vmin=0, vmax=1, aspect="auto")
        for y, (_, values) in enumerate(rows):
            for x, value in enumerate(values):
                if not math.isnan(value):
                    axes.text(x, y, f"{value:.0%}", ha="center", va="center", color="white" if value > 0.6 else "black")
        axes.set_xticks(range(len(columns)), [verbatim(name) for name in columns])
        axes.set_yticks(range(len(rows)), [verbatim(name) for name, _ in rows])
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
        return figure


def _strip(axes: Axes, x: float, width: float, values: Sequence[float], colour: str) -> None:
    """Dots side by side in their order, so that those of one height do not hide each other."""
    if not values:
        return
    across = [x + 0.5 * width * ((7 * k) % len(values) / len(values) - 0.5) for k in range(len(values))]
    axes.plot(across, values, "o", ms=2.5, mew=0, alpha=0.45, color=colour)
    axes.boxplot([list(values)], positions=[x], widths=[0.7 * width], showfliers=False, showcaps=False, whis=(5, 95),
                 manage_ticks=False, boxprops={"color": colour}, whiskerprops={"color": colour},
                 medianprops={"color": INK})  # fmt: skip


def _dots(axes: Axes, k: int, shift: float, label: str, rows: Sequence[Measure], groups: Sequence[str]) -> None:
    values = [row.value for row in rows]
    ends = [[ends[side] for ends in map(reach, rows)] for side in (0, 1)]
    heights = [groups.index(row.group) + 0.75 * shift for row in rows]
    axes.errorbar(
        values, heights, xerr=ends, fmt=MARKERS[k % len(MARKERS)], ms=4.5, color=COLOURS[k % len(COLOURS)],
        elinewidth=1.4, label=label,
    )  # fmt: skip
    axes.plot([row.floor for row in rows], heights, "|", ms=9, mew=0.9, color=INK)


def _label(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside their points, one label a point, where it covers no other and no point if there is such a place."""
    names: dict[tuple[float, float], list[str]] = {}
    for x, y, name in points:
        if not math.isnan(x + y):  # nothing could be scored
            names.setdefault((x, y), []).append(name)
    taken = [(x - 0.008, y - 0.012, 0.016) for x, y in names]
    for (x, y), found in sorted(names.items()):
        text = ", ".join(found)
        width = 0.0125 * len(text)
        places = [(left, y + up) for up in LABEL_HEIGHTS for left in (x + 0.01, x - 0.01 - width) if left >= 0]
        free = [
            (left, low)
            for left, low in places
            if low > 0 and not any(abs(low - b) < 0.034 and left < a + w and a < left + width for a, b, w in taken)
        ]
        place = (free or places)[0]
        taken.append((*place, width))
        axes.text(*place, text, fontsize=8, color=INK)


def _band(axes: Axes, x: Sequence[float], rows: Sequence[dict[str, Any]], label: str, colour: str) -> None:
    axes.plot(x, [row["value"] for row in rows], "o-", ms=3, lw=1.4, color=colour, label=label)
    axes.fill_between(x, [row["low"] for row in rows], [row["high"] for row in rows], color=colour, alpha=0.13, lw=0)
