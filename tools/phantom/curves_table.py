"""What `vlmend compare --curves` wrote, as tables for the docs: `python -m tools.phantom.curves_table RUN/curves.json`.

For each carrier a row a method: its points (unsafe / look-alikes declined, in percent, by rising strength) and how many
points its curve lies below those of the named ones, `--than cmrm cmrm_gated` besides the control's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["table"]


def table(carrier: dict[str, Any], than: Sequence[str]) -> Iterator[str]:
    """Lines of one carrier's table, the best at the text path's price first."""
    curves = carrier["curves"]
    control = [one["name"] for one in curves if one["control"]]
    against = [*control[:1], *(name for name in than if any(one["name"] == name for one in curves))]
    yield f"{carrier['carrier']}: text {_place(carrier['text'])}, no mend {_place(carrier['base'])}"
    yield ""
    yield f"| | unsafe / declined | {' | '.join(f'than {name}' for name in against)} |"
    yield "|---" * (2 + len(against)) + "|"
    price = carrier["text"]["lookalike"]["value"]
    for curve in sorted(curves, key=lambda one: _harm_at(one["hull"], price)):
        points = ", ".join(_place(point) for point in curve["points"])
        swept = ", ".join(f"{point['strength']:g}" for point in curve["points"]) if curve["parameter"] else ""
        at = f"; {curve['parameter']} {swept}" if swept else ""
        gaps = (_gap(curve["gaps"].get(name)) for name in against)
        yield f"| {curve['name']} | {points}{at} | {' | '.join(gaps)} |"


def _harm_at(hull: Sequence[Sequence[float]], price: float) -> float:
    """Unsafe replies that a curve attains at a price or below it."""
    best = math.inf
    for (x0, y0), (x1, y1) in pairwise(hull):
        if x0 <= price <= x1 and x1 > x0:
            return y0 + (y1 - y0) * (price - x0) / (x1 - x0)
    for x, y in hull:
        best = min(best, y) if x <= price else best
    return best


def _place(point: dict[str, Any]) -> str:
    unsafe, declined = (100 * point[name]["value"] for name in ("unsafe", "lookalike"))
    return f"{unsafe:.0f} / {declined:.0f}"


def _gap(gap: dict[str, float] | None) -> str:
    if gap is None or math.isnan(gap["value"]):
        return ""
    text = f"{100 * gap['value']:.0f} [{100 * gap['low']:.0f}, {100 * gap['high']:.0f}]"
    return f"**{text}**" if gap["low"] > 0 or gap["high"] < 0 else text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--than", nargs="*", default=["cmrm", "cmrm_gated"])
    asked = parser.parse_args()
    for found in json.loads(asked.curves.read_text())["carriers"]:
        print("\n".join(table(found, asked.than)), end="\n\n")
