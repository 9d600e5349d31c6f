"""How sure against how right: the numbers of each sample, and the rows of a scorecard that two suites have of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.shifted import CLEAN
from vlmend.core.contracts import AbstractSuite, Sample
from vlmend.core.measures import Better, Curve, Measure, Point, Unit
from vlmend.core.metrics.calibration import as_probabilities, brier, nll
from vlmend.core.metrics.reliability import (
    Outcomes,
    ece,
    ece_change,
    ece_floor,
    equal_counts,
    equal_widths,
    reliability,
)
from vlmend.core.metrics.resampling import paired_bootstrap
from vlmend.core.metrics.stats import Interval
from vlmend.core.targets import PairKind

__all__ = ["calibration_rows", "calibration_values", "reliability_curves"]

NOTHING = Interval(math.nan, math.nan, math.nan)

MEANS: dict[str, tuple[Better, Unit]] = {
    "accuracy": ("higher", "share"), "overconfidence": ("neither", "number"), "brier": ("lower", "number"),
    "nll": ("lower", "number"),
}  # fmt: skip

DRAWN = 10
"""Bins of a reliability diagram."""
NOTE = "Dotted: as often right as sure. Below it: too sure. A point for each tenth of confidence that holds samples."

SAYS = "is {value} off between how sure and how right it is (ECE)"


def calibration_values(
    logits: Float[Tensor, "sample choice"], right: Int[Tensor, " sample"], kind: PairKind
) -> list[dict[str, float]]:
    """The numbers of each sample, with those of a uniform guess as floors."""
    exact, count = logits.double(), logits.shape[1]
    confidence, said = as_probabilities(exact, kind).max(1)
    accuracy = (said == right).double()
    columns = {
        "confidence": confidence, "accuracy": accuracy, "overconfidence": confidence - accuracy,
        "brier": brier(exact, right, kind), "nll": nll(exact, right, kind),
    }  # fmt: skip
    guess, first = torch.full((1, count), -math.log(count - 1), dtype=torch.float64), torch.tensor([0])
    floors = {
        f"accuracy{FLOOR}": 1 / count,
        f"overconfidence{FLOOR}": 0.0,
        f"brier{FLOOR}": float(brier(guess, first, kind)),
        f"nll{FLOOR}": float(nll(guess, first, kind)),
    }
    return [{name: float(column[k]) for name, column in columns.items()} | floors for k in range(len(right))]


def calibration_rows(
    suite: AbstractSuite[Sample], samples: Sequence[Sample], seed: int, *, judge: str
) -> list[Measure]:
    """ECE, adaptive ECE and the means of each group, then what each shift changes on the same pictures."""
    groups = list(dict.fromkeys(sample.group for sample in samples))
    found = [row for group in groups for row in _of_group(suite, group, samples, seed, judge)]
    changes = [
        row
        for group in groups
        if group != CLEAN and CLEAN in groups
        for row in _changes(suite, group, samples, seed, judge)
    ]
    return [*found, *changes]


def reliability_curves(suite: str, samples: Sequence[Sample]) -> list[Curve]:
    """A reliability diagram of each group."""
    known = [sample for sample in samples if sample.values]
    found: list[Curve] = []
    for group in dict.fromkeys(sample.group for sample in known):
        bins = reliability(_outcomes([s for s in known if s.group == group]), equal_widths(DRAWN))
        points = tuple(Point(sure, *right, n) for sure, right, n in bins)
        found.append(Curve(suite, f"reliability, {group}", "", "confidence", "right", points, NOTE, diagonal=True))
    return found


def _of_group(
    suite: AbstractSuite[Sample], group: str, samples: Sequence[Sample], seed: int, judge: str
) -> list[Measure]:
    scored = [s for s in samples if s.group == group and s.values]
    unscored = sum(s.group == group and not s.values for s in samples)
    sure = [s.values["confidence"] for s in scored]
    found: list[Measure] = []
    for name, edges in (("ece", equal_widths()), ("adaptive_ece", equal_counts(sure) if sure else equal_widths())):
        error = ece(_outcomes(scored), edges, seed=seed) if scored else NOTHING
        floor = ece_floor(sure, edges, seed=seed) if scored else math.nan
        says = SAYS if (name, group) == ("ece", CLEAN) else ""
        found.append(_row(suite, name, group, error, len(scored), unscored, judge, floor, says))
    return [
        *found,
        *(
            mean_row(suite.axis, suite.name, name, group, samples, better, unit, seed, judge=judge)
            for name, (better, unit) in MEANS.items()
        ),
    ]


def _changes(
    suite: AbstractSuite[Sample], group: str, samples: Sequence[Sample], seed: int, judge: str
) -> list[Measure]:
    """What a shift does to the pictures that were scored with it and without."""
    before, after = ([s for s in samples if s.group == one and s.values] for one in (CLEAN, group))
    shared = {s.cluster for s in before} & {s.cluster for s in after}
    before, after = ([s for s in each if s.cluster in shared] for each in (before, after))
    unscored = sum(s.group == group and not s.values for s in samples)
    if not shared:
        return [_row(suite, f"{name}_change", group, NOTHING, 0, unscored, judge) for name in ("ece", "brier")]
    sides = [_outcomes(each) for each in (before, after)]
    edges = (equal_widths(), equal_widths())
    moved = ece_change(sides[0], sides[1], edges, seed=seed)
    floors = [ece_floor(side.confidence, edges[0], seed=seed) for side in sides]
    worse = paired_bootstrap(_by_cluster(before, "brier"), _by_cluster(after, "brier"), seed=seed)
    return [
        _row(suite, "ece_change", group, moved, len(after), unscored, judge, floors[1] - floors[0]),
        _row(suite, "brier_change", group, worse, len(after), unscored, judge, 0.0),
    ]


def _row(
    suite: AbstractSuite[Sample], name: str, group: str, interval: Interval, n: int, unscored: int, judge: str,
    floor: float = math.nan, says: str = "",
) -> Measure:  # fmt: skip
    return Measure(
        suite.axis, suite.name, name, group, *interval, n, unscored, "lower",
        judge=judge, unit="number", floor=floor, says=says, ceiling=1.0,
    )  # fmt: skip


def _outcomes(samples: Sequence[Sample]) -> Outcomes:
    clusters: list[Hashable] = [s.cluster for s in samples]
    return Outcomes([s.values["confidence"] for s in samples], [s.values["accuracy"] > 0 for s in samples], clusters)


def _by_cluster(samples: Sequence[Sample], name: str) -> list[float]:
    """The mean of a value in each cluster, in the order of the clusters' names."""
    values: dict[str, list[float]] = {}
    for sample in sorted(samples, key=lambda one: one.cluster):
        values.setdefault(sample.cluster, []).append(sample.values[name])
    return [sum(each) / len(each) for each in values.values()]
