"""How well a score tells what a model was trained on from what it was not: three numbers, each with its interval.

A score is high for members. Scores come by cluster (person, scene): what is not independent is resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.detection import auroc
from vlmend.core.metrics.resampling import expanded_percentile
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.core.splits import word_fraction

__all__ = [
    "ENOUGH", "FALSE_ALARMS", "ByCluster", "Separation", "right_by_halves", "roc", "separation", "set_separation",
    "tpr_at", "tpr_by_chance",
]  # fmt: skip

FALSE_ALARMS = 0.01
"""Share of non-members that may be called members where the true positive rate is read."""
ENOUGH = round(1 / FALSE_ALARMS)
"""Fewer non-members cannot show a rate as small as that."""

Array = npt.NDArray[np.float64]
ByCluster = Mapping[str, Sequence[float]]
"""Scores, by the name of the cluster that they belong to."""


class Separation(NamedTuple):
    """Three numbers; NaN throughout where a kind has fewer than two clusters.

    Attributes:
        auroc: Chance that a member scores above a non-member, ties counted as half; 0.5 by chance.
        tpr: Share of members above all but 1 % of the non-members; NaN with fewer than 100 of these.
        accuracy: Balanced accuracy at a threshold that was chosen on other clusters; 0.5 by chance.
    """

    auroc: Interval
    tpr: Interval
    accuracy: Interval


def separation(members: ByCluster, others: ByCluster, *, seed: int, draws: int = 1000) -> Separation:
    """The three, with percentile bootstraps over the clusters of either kind (widened for few: `resampling`).

    Where all resamples agree on 0 or 1, Wilson's interval with as many samples as the smaller kind has clusters.
    """
    few = min(len(members), len(others))
    if few < 2:
        return Separation(*[Interval(math.nan, math.nan, math.nan)] * 3)
    halves = right_by_halves(members, others)
    kinds = [_columns(scores, right) for scores, right in zip((members, others), halves, strict=True)]
    rng = np.random.default_rng(seed)
    value = _numbers(*(rows for rows, _ in kinds))
    drawn = np.array([_numbers(*(_resample(rows, owner, rng) for rows, owner in kinds)) for _ in range(draws)])
    return Separation(*(_interval(*found, few) for found in zip(value, drawn.T, strict=True)))


def set_separation(
    members: ByCluster, others: ByCluster, size: int, *, seed: int, sets: int = 1000, draws: int = 200
) -> Interval:
    """AUROC of the mean score of a set of members against that of a set of non-members, with its interval.

    Sets are drawn with replacement from the means of clusters, so that those of one set are independent of each other;
    the interval resamples the clusters. A set of one is the attack on single samples.

    Args:
        members, others: Scores by cluster.
        size: Clusters of a set.
        seed: Of all draws.
        sets: Of each kind.
        draws: Resamples.

    Returns:
        NaN throughout where a kind has fewer than two clusters, or fewer than a set.
    """
    few = min(len(members), len(others))
    if few < max(2, size):
        return Interval(math.nan, math.nan, math.nan)
    own, other = (np.array([np.mean(of) for of in kind.values()], np.float64) for kind in (members, others))
    rng = np.random.default_rng(seed)

    def found(first: Array, second: Array) -> float:
        if size == 1:
            return auroc(first, second)
        means: list[Array] = [kind[rng.integers(len(kind), size=(sets, size))].mean(axis=1) for kind in (first, second)]
        return auroc(*means)

    value = found(own, other)
    again = [[kind[rng.integers(len(kind), size=len(kind))] for kind in (own, other)] for _ in range(draws)]
    drawn = np.array([found(*pair) for pair in again])
    interval = _interval(value, drawn, few)
    return Interval(value, min(interval.low, value), max(interval.high, value))


def tpr_at(members: Sequence[float] | Array, others: Sequence[float] | Array) -> float:
    """Share of members strictly above the threshold that at most 1 % of the non-members are strictly above."""
    falling = np.sort(np.asarray(others, dtype=np.float64))[::-1]
    return float(np.mean(np.asarray(members) > falling[math.floor(FALSE_ALARMS * len(falling))]))


def roc(members: Sequence[float], others: Sequence[float], most: int = 40) -> list[tuple[float, float]]:
    """False alarms and members caught, both above 0, at thresholds that are scores of non-members.

    At each threshold what lies strictly above it is called a member. The shares of false alarms lie evenly on a
    logarithmic axis from one non-member to all, where every member is caught; at most `most` of them. Of tied scores
    none lies above. Empty where a kind is.
    """
    if not members or not others:
        return []
    falling = np.sort(np.asarray(others, dtype=np.float64))[::-1]
    own = np.asarray(members, dtype=np.float64)
    alarms = np.unique(np.geomspace(1, len(falling), most).round().astype(int))
    thresholds = [*falling[alarms[alarms < len(falling)]], -math.inf]
    found = {(float(np.mean(falling > one)), float(np.mean(own > one))) for one in thresholds}
    return sorted((false, caught) for false, caught in found if false > 0 and caught > 0)


def tpr_by_chance(others: int) -> float:
    """What `tpr_at` gives on average where members and so many non-members are alike and no two scores are equal.

    A member is as likely as each of n non-members to be one of the k + 1 highest of the n + 1: (k + 1) / (n + 1).
    """
    return (math.floor(FALSE_ALARMS * others) + 1) / (others + 1)


def right_by_halves(members: ByCluster, others: ByCluster) -> tuple[dict[str, Array], dict[str, Array]]:
    """Whether each score is on its right side of the best threshold of the other half of the clusters, 0 or 1.

    A threshold chosen on the very scores that it is counted on is above chance on pure noise. NaN where the other half
    lacks a kind.
    """
    thresholds = [_best_threshold(*(_of_half(kind, 1 - half) for kind in (members, others))) for half in (0, 1)]
    first, second = (
        {name: np.asarray(scores, dtype=np.float64) - thresholds[_half(name)] for name, scores in kind.items()}
        for kind in (members, others)
    )
    return (
        {name: np.where(np.isnan(gap), np.nan, gap >= 0) for name, gap in first.items()},
        {name: np.where(np.isnan(gap), np.nan, gap < 0) for name, gap in second.items()},
    )


def _half(cluster: str) -> int:
    return int(word_fraction(cluster) >= 0.5)


def _of_half(kind: ByCluster, half: int) -> Array:
    return np.array([score for name, scores in kind.items() if _half(name) == half for score in scores])


def _best_threshold(members: Array, others: Array) -> float:
    """Where to begin to say "member" so that balanced accuracy is highest, midway between two scores.

    NaN where a kind is empty.
    """
    if not len(members) or not len(others):
        return math.nan
    tried = np.unique(np.concatenate([members, others]))
    caught, alarmed = (1 - np.searchsorted(np.sort(kind), tried) / len(kind) for kind in (members, others))
    best = int(np.argmax(caught - alarmed))
    return float(tried[max(best - 1, 0)] + tried[best]) / 2


def _columns(scores: ByCluster, right: Mapping[str, Array]) -> tuple[Array, npt.NDArray[np.intp]]:
    """Scores beside whether they are on their right side, "score 2", and the number of the cluster of each."""
    rows = np.array([pair for name, of in scores.items() for pair in zip(of, right[name], strict=True)])
    return rows, np.repeat(np.arange(len(scores)), [len(of) for of in scores.values()])


def _resample(rows: Array, owner: npt.NDArray[np.intp], rng: np.random.Generator) -> Array:
    """As many clusters as there are, drawn with replacement, each with all its rows."""
    count = int(owner[-1]) + 1
    times = np.bincount(rng.integers(count, size=count), minlength=count)
    return rows.repeat(times[owner], axis=0)


def _numbers(members: Array, others: Array) -> tuple[float, float, float]:
    tpr = tpr_at(members[:, 0], others[:, 0]) if len(others) >= ENOUGH else math.nan
    return auroc(members[:, 0], others[:, 0]), tpr, float(members[:, 1].mean() + others[:, 1].mean()) / 2


def _interval(value: float, drawn: Array, few: int) -> Interval:
    found = expanded_percentile(drawn, value, few, 0.95)
    alike = math.isnan(found.low) and value in (0.0, 1.0)
    return wilson(int(value) * few, few) if alike else found
