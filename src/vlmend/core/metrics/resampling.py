"""Intervals and tests by resampling: samples asked several times, and pairs of any numbers.

All statistics here are functions of sums over units (clusters, pairs, items), so a resample is a set of
counts, and units that are alike are drawn together. Shares of independent samples need none of this: see
`stats`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit
from scipy.stats import permutation_test

from vlmend.core.metrics.stats import Interval, check_lengths, check_level, paired_difference, share_interval, wilson
from vlmend.errors import BadParameter

__all__ = [
    "cluster_bootstrap",
    "expanded_percentile",
    "mean_interval",
    "paired_bootstrap",
    "resampled",
    "sign_flip",
    "signed_mean_interval",
]

Array = npt.NDArray[np.float64]
CELLS = 10**7
"""Counts drawn at once: 80 MB."""
EXACT_DRAWS = 2**13
"""Sign flips drawn; with up to 13 pairs that differ, all are counted instead."""


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable], *, seed: int) -> Interval:
    """The mean of a measure's values with its 95 % interval: the one kind that every share and mean has.

    Wilson's for independent yes/no values, each a cluster of its own; `cluster_bootstrap` for all others.
    """
    if len(set(clusters)) == len(values) and set(values) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values))
    return cluster_bootstrap(values, clusters, seed=seed)


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[Hashable], *, seed: int, draws: int = 2000, level: float = 0.95
) -> Interval:
    """Mean over all values, with an interval from resampling whole clusters.

    For requests that were asked several times (epochs, conditions, paraphrases): replies to one request
    depend on each other, so the request is the unit. The mean weighs each value alike, so a cluster counts
    by its size.

    Yes/no values (all 0 or 1): the bootstrap gives the standard error, and the interval is Wilson's at the
    effective sample size, with Student's t of (clusters - 1); see `stats.share_interval`. Percentile and
    BCa intervals were measured too and cover less at 10 to 20 clusters and small rates. Other values: the
    expanded percentile interval.

    Where resampling shows no spread at all, a zero-width interval would be a lie:
    - one cluster: NaN limits, since nothing tells how clusters differ;
    - all values 0, or all 1: Wilson's interval with as many samples as clusters, the cautious reading that
      replies within a cluster say nothing new;
    - all cluster means equal, other than that: yes/no as above with the clusters as samples, else NaN limits.

    Not valid with fewer than about 10 clusters, or where clusters depend on each other.

    Args:
        values: One number a reply.
        clusters: What each reply belongs to, such as the id of its request.
        seed: Of the draws.
        draws: Resamples.
        level: Confidence level.

    Raises:
        BadParameter: Different lengths, values that are not finite, or a level or draws that are none.
    """
    check_lengths(values=len(values), clusters=len(clusters))
    data = _numbers(values, draws, level)
    if not len(data):
        return Interval(math.nan, math.nan, math.nan)
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([names[name] for name in clusters])
    rows = np.stack([np.bincount(member, data), np.bincount(member)], axis=1).astype(np.float64)
    value, g = float(data.mean()), len(rows)
    if g == 1:
        return Interval(value, math.nan, math.nan)
    means = resampled(rows, lambda sums: sums[:, 0] / sums[:, 1], seed=seed, draws=draws)
    error = float(means.std()) * math.sqrt(g / (g - 1))
    if np.isin(data, (0.0, 1.0)).all():
        spread = error if error > 1e-12 else 0.0
        return share_interval(value, spread, least=1 if spread else g, most=len(data), df=g - 1, level=level)
    return expanded_percentile(means, value, g, level)


def signed_mean_interval(values: Sequence[float], clusters: Sequence[Hashable], *, seed: int) -> Interval:
    """The mean of differences between -1 and 1 with its interval; those that are all 0 and 1 are no shares here.

    `cluster_bootstrap` of (1 + difference) / 2, brought back: symmetric in the sign, NaN limits where all are 0.
    """
    found = cluster_bootstrap([(1 + value) / 2 for value in values], clusters, seed=seed)
    return Interval(*(2 * limit - 1 for limit in found))


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], *, seed: int, draws: int = 2000, level: float = 0.95
) -> Interval:
    """Mean after minus mean before on the same samples, with an expanded percentile interval over pairs.

    For scores. Yes/no outcomes are better served by `stats.paired_difference`, which covers small rates.
    Where all differences are equal the bootstrap has no spread: yes/no values then get that interval, others
    NaN limits. Not valid with fewer than about 20 pairs, or pairs that depend on each other.

    Raises:
        BadParameter: Different lengths, values that are not finite, or a level or draws that are none.
    """
    check_lengths(before=len(before), after=len(after))
    first, second = _numbers(before, draws, level), _numbers(after, draws, level)
    change = second - first
    if not len(change):
        return Interval(math.nan, math.nan, math.nan)
    if np.ptp(change) == 0 and np.isin((first, second), (0.0, 1.0)).all():
        return paired_difference([bool(x) for x in first], [bool(x) for x in second], level=level)
    n = len(change)
    means = resampled(change[:, None], lambda sums: sums[:, 0] / n, seed=seed, draws=draws)
    return expanded_percentile(means, float(change.mean()), n, level)


def sign_flip(before: Sequence[float], after: Sequence[float], *, seed: int) -> float:
    """Two-sided sign-flip permutation p-value: could the sign of each difference be a coin toss?

    Exact with up to 13 pairs that differ, else from 8192 draws (the smallest possible p is then about
    0.0002). 1 where no pair differs, or a single one. For yes/no outcomes it is McNemar's exact test.

    Source: scipy `permutation_test` with one sample and `permutation_type="samples"`.

    Raises:
        BadParameter: Different lengths, or values that are not finite.
    """
    check_lengths(before=len(before), after=len(after))
    change = _numbers(after, 1, 0.95) - _numbers(before, 1, 0.95)
    change = change[change != 0]
    if len(change) < 2:
        return 1.0
    result = permutation_test(
        (change,), np.sum, permutation_type="samples", vectorized=True, n_resamples=EXACT_DRAWS,
        batch=max(1, CELLS // len(change)), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def resampled(rows: Array, statistic: Callable[[Array], Array], *, seed: int, draws: int) -> Array:
    """A statistic of the column sums, for bootstrap resamples of the rows.

    Args:
        rows: One row a unit.
        statistic: From sums, one row a resample, to one number a resample.
        seed: Of the draws.
        draws: Resamples.

    Shape:
        rows (unit, column); result (draws,).
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    rng, n = np.random.default_rng(seed), len(rows)
    block = max(1, CELLS // len(kinds))
    sizes = [min(block, draws - start) for start in range(0, draws, block)]
    return np.concatenate([statistic(rng.multinomial(n, counts / n, size=size) @ kinds) for size in sizes])


def expanded_percentile(estimates: Array, value: float, n: int, level: float) -> Interval:
    """Percentile interval of bootstrap estimates, widened for the narrowness of small n.

    The tail share is Phi(-sqrt(n / (n - 1)) t) with t the quantile of Student's t at n - 1 degrees of
    freedom. Estimates that are NaN are left out; NaN limits where there is no spread.

    Source: Hesterberg, The American Statistician 69 (2015), 371-386.
    """
    known = estimates[~np.isnan(estimates)]
    if n < 2 or not len(known) or np.ptp(known) <= 1e-12:
        return Interval(value, math.nan, math.nan)
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + level) / 2)))
    low, high = np.quantile(known, (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def _numbers(values: Sequence[float], draws: int, level: float) -> Array:
    """The values as an array, all that is asked for checked."""
    check_level(level)
    data = np.asarray(values, dtype=np.float64)
    bad = int((~np.isfinite(data)).sum())
    problems = [f"draws={draws!r} is below 1"] * (draws < 1) + [f"{bad} values are not finite"] * bool(bad)
    if problems:
        raise BadParameter(f"{'; '.join(problems)}.", "Leave out what could not be scored; draws are 1 or more.")
    return data
