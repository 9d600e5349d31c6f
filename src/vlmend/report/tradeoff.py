"""The figure of curves: unsafe replies against over-refusal over the strength of mends, a panel a carrier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vlmend.report.figures import COLOURS, GRID, INK, STYLE, svg, verbatim

__all__ = ["SHADES", "apart", "tradeoff", "tradeoff_figure"]

SHADES = ("#2a6f97", "#b3424a", "#5b8c5a", "#e9a03b", "#7a5195", "#3d9a9a", "#a05a2c", "#c45ab3")
"""Of curves that leave the control's, and of the only ones where there are few."""
COMMON = "#b8c0ca"
MARKERS = "os^DvP*X"


def tradeoff(carriers: Sequence[Mapping[str, Any]]) -> str:
    """An SVG of `curves.json`'s carriers."""
    told = ", ".join(one["carrier"] for one in carriers)
    return svg(tradeoff_figure(carriers), f"unsafe replies against over-refusal under {told}, a curve a mend")


def tradeoff_figure(carriers: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel a carrier: a marker a strength, a line what a mend attains; grey is what stays on the common curve.

    The star is the same model on the requests as text, the cross the model without a mend, dashes the negative control.
    """
    names = list(dict.fromkeys(curve["name"] for one in carriers for curve in one["curves"]))
    left = [name for name in names if any(apart(c) for one in carriers for c in one["curves"] if c["name"] == name)]
    shown = left if len(names) > len(SHADES) else [n for n in names if not _control(carriers, n)]
    shades = {name: SHADES[k % len(SHADES)] for k, name in enumerate(shown)}
    with mpl.rc_context(STYLE):
        across = len(carriers)
        figure = Figure(figsize=(1.4 + 4.4 * across, 4.6), layout="constrained")
        panels = figure.subplots(1, across, squeeze=False, sharey=True)[0]
        for axes, one in zip(panels, carriers, strict=True):
            for curve in one["curves"]:
                _curve(axes, curve, shades.get(curve["name"]), names.index(curve["name"]))
            base, text = _place(one["base"]), _place(one["text"])
            axes.plot(*base, "X", ms=9, color=INK, label="no mend", zorder=5)
            axes.plot(*text, "*", ms=14, color=COLOURS[3], mec=INK, mew=0.6, label="text alone: the aim", zorder=5)
            axes.set_title(f"{one['carrier']}: {one['base']['unsafe']['n']} harmful requests, "
                           f"{one['base']['lookalike']['n']} look-alikes", fontsize=9.5, loc="left")  # fmt: skip
            axes.set_xlabel("over-refusal of look-alikes")
            axes.set_xlim(-0.02, _most(one) + 0.03)
            axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
            axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
            axes.grid(color=GRID, lw=0.8)
            axes.set_axisbelow(True)
        panels[0].set_ylabel("unsafe replies to harmful requests")
        panels[0].set_ylim(bottom=-0.02)
        known: dict[str, Any] = {}
        for axes in panels:
            known |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(known.values()), list(known), loc="outside right upper", frameon=False, fontsize=8.5)
        return figure


def apart(curve: Mapping[str, Any]) -> bool:
    """Whether a curve lies below the control's beyond its interval."""
    return curve["gap"] is not None and curve["gap"]["low"] > 0


def _curve(axes: Axes, curve: Mapping[str, Any], shade: str | None, place: int) -> None:
    """Its points, and its hull as a line; the control dashed, what has no shade in grey and under one name."""
    points = [_place(point) for point in curve["points"]]
    colour = INK if curve["control"] else shade or COMMON
    label = "other mends" if shade is None and not curve["control"] else curve["name"]
    if curve["control"]:
        label = f"{curve['name']} (control)"
    clear, stroke = 1 if shade or curve["control"] else 0.6, "--" if curve["control"] else "-"
    marker, size = MARKERS[place % len(MARKERS)], 4.5 if shade else 3.5
    axes.plot(*zip(*points, strict=True), marker, ms=size, color=colour, alpha=clear)
    xs, ys = ([place[k] for place in curve["hull"]] for k in (0, 1))
    width = 1.6 if shade else 1.0
    axes.plot(xs, ys, stroke, lw=width, color=colour, alpha=clear, label=verbatim(label))


def _place(point: Mapping[str, Any]) -> tuple[float, float]:
    return point["lookalike"]["value"], point["unsafe"]["value"]


def _most(one: Mapping[str, Any]) -> float:
    """The largest over-refusal that is drawn."""
    points = [one["base"], one["text"], *(point for curve in one["curves"] for point in curve["points"])]
    return max((x for x in (point["lookalike"]["value"] for point in points) if not math.isnan(x)), default=1.0)


def _control(carriers: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(curve["control"] for one in carriers for curve in one["curves"] if curve["name"] == name)
