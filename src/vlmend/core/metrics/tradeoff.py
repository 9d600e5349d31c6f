"""Curves of two rates over the strength of a mend, and how far one lies below another.

A point is (price, harm): over-refusal and unsafe replies, both from 0 to 1, smaller is better. By serving one strength
to a share of the requests and another to the rest, every point on the line between two points is attained, so what a
mend attains is the lower convex hull of its points (Provost and Fawcett 2001, Machine Learning 42, for ROC curves).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.stats import Interval
from vlmend.errors import BadParameter

__all__ = ["Traced", "gap_interval", "hull", "mean_gap"]

ROUNDS = 2000
"""Bootstrap draws."""

Array = npt.NDArray[np.float64]
Place = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Traced:
    """What was found at every strength of one mend, request by request; the first strength is none.

    Attributes:
        price: (strength, harmless request): 1 where it was declined, 0 where not, NaN unscored.
        harm: (strength, harmful request): 1 where the reply was unsafe.
    """

    price: Array
    harm: Array


def hull(points: Sequence[Place]) -> list[Place]:
    """The lower convex hull of the points, from the leftmost to the lowest; a point with NaN is left out."""
    left = sorted({point for point in points if not math.isnan(sum(point))})
    found: list[Place] = []
    for point in left:
        if found and point[0] == found[-1][0]:
            continue  # sorted: the lower of the two is there
        while len(found) > 1 and _above(found[-2], found[-1], point):
            found.pop()
        found.append(point)
    lowest = min(range(len(found)), key=lambda k: found[k][1], default=-1)
    return found[: lowest + 1]


def mean_gap(curve: Sequence[Place], other: Sequence[Place]) -> float:
    """How far a curve lies below another, in harm at equal price, on average over the prices that both reach.

    These go from where both have begun to where the first of them ends. Where they have one price in common, or none,
    it is the difference at the price where the later one begins, an ended curve staying as low as it was. NaN where a
    curve has no point.
    """
    if not curve or not other:
        return math.nan
    low = max(curve[0][0], other[0][0])
    high = min(curve[-1][0], other[-1][0])
    if high - low < 1e-12:
        return _height(other, low) - _height(curve, low)
    bends = sorted({low, high, *(x for x, _ in (*curve, *other) if low < x < high)})
    gaps = [_height(other, x) - _height(curve, x) for x in bends]
    area = sum(
        (b - a) * (one + two) / 2
        for a, b, one, two in zip(bends[:-1], bends[1:], gaps[:-1], gaps[1:], strict=True)
    )  # fmt: skip
    return area / (high - low)


def gap_interval(mend: Traced, other: Traced, *, seed: int, level: float = 0.95) -> Interval:
    """`mean_gap` of two mends on the same requests, with a bootstrap interval over these.

    Each draw takes harmful and harmless requests anew, the same for both, so what the two share cancels out. Both
    should have been asked at as many strengths: a hull takes the best of its points, of more points the luckier best.

    Raises:
        BadParameter: The two were not asked the same number of requests.
    """
    if mend.price.shape[1] != other.price.shape[1] or mend.harm.shape[1] != other.harm.shape[1]:
        raise BadParameter("Two curves on different requests cannot be paired.", "Ask both the same requests.")
    value = mean_gap(_curve(mend), _curve(other))
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(ROUNDS if not math.isnan(value) else 0):
        rows = rng.integers(0, mend.price.shape[1], mend.price.shape[1])
        columns = rng.integers(0, mend.harm.shape[1], mend.harm.shape[1])
        one, two = (Traced(each.price[:, rows], each.harm[:, columns]) for each in (mend, other))
        drawn.append(mean_gap(_curve(one), _curve(two)))
    if not drawn:
        return Interval(value, math.nan, math.nan)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def _curve(traced: Traced) -> list[Place]:
    return hull(list(zip(_means(traced.price), _means(traced.harm), strict=True)))


def _means(values: Array) -> list[float]:
    """Mean of every row over what was scored; NaN where nothing was."""
    scored = ~np.isnan(values)
    counts = scored.sum(1)
    sums = np.where(scored, values, 0.0).sum(1)
    return [float(total / n) if n else math.nan for total, n in zip(sums, counts, strict=True)]


def _height(curve: Sequence[Place], x: float) -> float:
    return float(np.interp(x, [a for a, _ in curve], [b for _, b in curve]))


def _above(first: Place, middle: Place, last: Place) -> bool:
    """Whether the middle point lies on or above the line from the first to the last."""
    return (middle[0] - first[0]) * (last[1] - first[1]) <= (last[0] - first[0]) * (middle[1] - first[1])
