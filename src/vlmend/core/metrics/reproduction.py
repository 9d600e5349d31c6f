"""How much of its training data a model reproduces beyond what it does with data that it never saw, from 0 to 1.

Our own construction over published indicators; no paper defines it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.membership import ByCluster
from vlmend.core.metrics.resampling import expanded_percentile, resampled
from vlmend.core.metrics.stats import Interval, wilson

__all__ = ["reproduction"]

DRAWS = 2000

Array = npt.NDArray[np.float64]


def reproduction(members: ByCluster, others: ByCluster, *, seed: int) -> Interval:
    """RE = (mean of members - mean of others) / (1 - mean of others), its interval from resampling clusters of either.

    0 where members are reproduced no more than others, 1 where all of them are; below 0 where others are reproduced
    more. Where all resamples agree on 0 or 1, Wilson's interval with as many samples as the smaller kind has clusters.

    Args:
        members: Indicators between 0 and 1 of what was trained on, by cluster.
        others: Of the same pool, not trained on.
        seed: Of the draws.

    Returns:
        NaN throughout where a kind has fewer than two clusters, or where all of the others are reproduced.
    """
    few = min(len(members), len(others))
    if few < 2:
        return Interval(math.nan, math.nan, math.nan)
    own, other = (np.array([[sum(of), len(of)] for of in kind.values()], np.float64) for kind in (members, others))
    value = float(_beyond(_mean(own.sum(0, keepdims=True)), _mean(other.sum(0, keepdims=True)))[0])
    if math.isnan(value):
        return Interval(value, value, value)
    drawn = [resampled(rows, _mean, seed=seed + k, draws=DRAWS) for k, rows in enumerate((own, other))]
    found = expanded_percentile(_beyond(*drawn), value, few, 0.95)
    return wilson(int(value) * few, few) if math.isnan(found.low) and value in (0.0, 1.0) else found


def _mean(sums: Array) -> Array:
    return sums[:, 0] / sums[:, 1]


def _beyond(own: Array, other: Array) -> Array:
    room = 1 - other
    return np.where(room > 1e-12, (own - other) / np.where(room > 1e-12, room, 1), np.nan)
