"""Does the gap between pictures and texts go with robustness? Over all measured runs of `tools.robustness`.

    python -m tools.gap_study      # writes the section of docs/suites/modality_gap.md and its picture

A run counts where its gap and its accuracy under attack were measured. Runs of one method depend on each other, so
intervals resample methods, and a correlation is told beside what permuted runs give.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.stats import rankdata

from tools.robustness import ROOT, RUNS
from vlmend.core.metrics.resampling import expanded_percentile
from vlmend.report.figures import COLOURS, GRID, INK, STYLE

__all__ = ["Correlation", "correlation", "drawn", "page_of", "section"]

PAGE = ROOT / "docs" / "suites" / "modality_gap.md"
PICTURE = ROOT / "docs" / "pictures" / "gap_and_attacks.png"

ATTACKED = "attacked 5/255"
PAIRS = (
    ("gap", ATTACKED), ("gap", "accuracy clean"), ("pair_cosine", ATTACKED), ("accuracy clean", ATTACKED),
)  # fmt: skip
"""What is held against what."""
TOLD = {
    "gap": "gap", "pair_cosine": "cosine of a pair", ATTACKED: "accuracy attacked at 5/255",
    "accuracy clean": "accuracy clean",
}  # fmt: skip
DRAWS = 2000

Array = npt.NDArray[np.float64]
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over runs.

    Attributes:
        value: It.
        low, high: 95 %, from resampling methods; NaN below two.
        chance: Share of permuted runs whose correlation is as far from 0.
        n: Runs.
        methods: Of which they are, the base counted as one.
    """

    value: float
    low: float
    high: float
    chance: float
    n: int
    methods: int


def correlation(first: Sequence[float], second: Sequence[float], methods: Sequence[str], *, seed: int) -> Correlation:
    """The correlation of two numbers of the same runs."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value, rng = _spearman(x, y), np.random.default_rng(seed)
    places = [np.flatnonzero(np.asarray(methods) == name) for name in dict.fromkeys(methods)]
    drawn_places = (
        np.concatenate([places[k] for k in rng.integers(len(places), size=len(places))]) for _ in range(DRAWS)
    )
    estimates = np.array([_spearman(x[chosen], y[chosen]) for chosen in drawn_places])
    interval = expanded_percentile(estimates, value, len(places), 0.95)
    permuted = np.array([_spearman(x, rng.permutation(y)) for _ in range(DRAWS)])
    as_far = int((np.abs(permuted) >= abs(value) - 1e-12).sum())
    return Correlation(value, interval.low, interval.high, (as_far + 1) / (DRAWS + 1), len(x), len(places))


def _spearman(x: Array, y: Array) -> float:
    """NaN where one of the two does not vary."""
    ranks = rankdata(x), rankdata(y)
    if min(np.ptp(one) for one in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def section(runs: Sequence[Run]) -> str:
    """The table of correlations, as Markdown; those that three runs or more know."""
    lines = ["| over the runs | rank correlation | permuted runs as far from 0 | runs, methods |", "|---|---|---|---|"]
    for first, second in PAIRS:
        both = _measured(runs, first, second)
        if len(both) < 3:
            continue
        found = correlation(
            [_of(run, first) for run in both], [_of(run, second) for run in both],
            [run["method"] for run in both], seed=0,
        )  # fmt: skip
        lines.append(
            f"| {TOLD[first]} and {TOLD[second]} | {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] | "
            f"{100 * found.chance:.1f} % | {found.n}, {found.methods} |"
        )
    return "\n".join(lines)


def drawn(runs: Sequence[Run]) -> Figure:
    """The gap of each run against its accuracy under attack, with intervals; methods by colour and name."""
    both = _measured(runs, "gap", ATTACKED)
    methods = list(dict.fromkeys(run["method"] for run in both))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for k, method in enumerate(methods):
            points = np.array([[run["values"][name][:3] for name in ("gap", ATTACKED)] for run in both
                               if run["method"] == method])  # fmt: skip
            value, reach = points[:, :, 0], np.abs(points[:, :, 1:] - points[:, :, :1])
            axes.errorbar(
                value[:, 0], value[:, 1], reach[:, 1].T, reach[:, 0].T, fmt="osD^v"[k // len(COLOURS) % 5], ms=5,
                elinewidth=0.6, color=COLOURS[k % len(COLOURS)], label="base" if method == "none" else method,
            )  # fmt: skip
        axes.set_xlabel("gap between pictures and texts")
        axes.set_ylabel("right under attack at 5/255")
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK)
        figure.legend(loc="outside right upper", frameon=False)
        return figure


def page_of(text: str, runs: Sequence[Run]) -> str:
    """The page with its table written anew."""
    return re.sub(
        r"(<!-- study -->\n).*?(?=<!-- end -->)", lambda found: f"{found[1]}{section(runs)}\n", text, flags=re.DOTALL
    )


def _measured(runs: Sequence[Run], *names: str) -> list[Run]:
    return [run for run in runs if all(name in run["values"] for name in names)]


def _of(run: Run, name: str) -> float:
    return run["values"][name][0]


if __name__ == "__main__":
    measured = json.loads(RUNS.read_text())
    PAGE.write_text(page_of(PAGE.read_text(), measured))
    drawn(measured).savefig(PICTURE, dpi=150)
