"""Fills a page template and writes it: one file, with its style and its figures inside."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vlmend.core.files import write_file
from vlmend.core.metrics.paired import Paired

__all__ = ["write_page"]

LIMITS = ("value", "low", "high")


def write_page(template: str, content: dict[str, Any], out: Path) -> None:
    """Write a self-contained page.

    Raises:
        RunProblem: The file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("vlmend.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"rate": _rate, "p": _p, "difference": difference, "share": _share, "number": _number}
    style = resources.files("vlmend.report").joinpath("style.css").read_text("utf-8")
    page = environment.get_template(template).render(content | {"style": style})
    write_file(out, page.encode(errors="replace"))  # a reply may hold half of a pair of surrogates


def _rate(row: dict[str, Any]) -> str:
    """A share with its interval, or why there is none."""
    if not row["n"]:
        return "unscored"
    unscored = f", {row['unscored']} unscored" if row["unscored"] else ""
    return f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]{unscored}"


def difference(test: Paired) -> str:
    """After minus before with its interval: of a share in points, else in the measure's own unit."""
    scale, form = (100, "+.0f") if test.before.unit == "share" else (1, "+.2f")
    value, low, high = (format(scale * x, form) for x in test.difference)
    return value if math.isnan(test.difference.low) else f"{value} [{low}, {high}]"


def _share(one: dict[str, Any]) -> str:
    """An interval of shares in percent."""
    return _interval([f"{one[name]:.0%}" for name in LIMITS], one)


def _number(one: dict[str, Any]) -> str:
    """An interval of numbers."""
    return _interval([f"{one[name]:.2f}" for name in LIMITS], one)


def _interval(told: list[str], one: dict[str, Any]) -> str:
    if math.isnan(one["value"]):
        return ""
    return told[0] if math.isnan(one["low"]) else f"{told[0]} [{told[1]}, {told[2]}]"


def _p(value: float) -> str:
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
