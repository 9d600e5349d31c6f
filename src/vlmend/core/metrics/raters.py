"""Agreement of raters with intervals: Cohen's kappa for two, Krippendorff's alpha for any number, and groups of them.

`stats.agreement` gives the two numbers of a pair of label lists without an interval.

Both coefficients are 1 - disagreement / disagreement by chance. The bootstrap gives their standard error; the
interval is that of the agreement, a share (`stats.share_interval`), brought to the scale of the coefficient.
Percentile intervals were measured too: they cover less where agreement is high, and are of zero width where no
item differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.resampling import resampled
from vlmend.core.metrics.stats import Interval, agreement, check_lengths, check_level, share_interval
from vlmend.errors import BadParameter

__all__ = ["Parting", "group_parting", "kappa_interval", "krippendorff_alpha"]

Array = npt.NDArray[np.float64]

DEALINGS = 9999
"""Dealings of a group to the raters up to which all are counted; beyond, so many are drawn."""


class Parting(NamedTuple):
    """How far a group of raters parts from the others.

    Attributes:
        value: Disagreement across less disagreement within the two sides: 0 where the group makes no difference.
        p: One-sided, over dealings of the group to the raters.
        least: The smallest p that so few raters could give.
    """

    value: float
    p: float
    least: float


def kappa_interval(
    ours: Sequence[str], theirs: Sequence[str], *, seed: int, draws: int = 2000, level: float = 0.95
) -> Interval:
    """Cohen's kappa of two raters, with a bootstrap interval over items.

    -1 to 1; 0 is agreement by chance. NaN where both use one and the same label throughout (chance alone
    then gives full agreement), or without two items. Where the raters agree on every item the lower limit is
    the kappa at Wilson's lower limit of the agreement. Not to be trusted with fewer than about 50 items, or
    where resamples may miss a label altogether.

    Source: Cohen, Educational and Psychological Measurement 20 (1960), 37-46.

    Raises:
        BadParameter: Different lengths, or a level that is none.
    """
    check_lengths(ours=len(ours), theirs=len(theirs))
    check_level(level)
    if len(ours) < 2:
        return Interval(math.nan, math.nan, math.nan)
    n, names = len(ours), sorted({*ours, *theirs})
    index, k = {name: i for i, name in enumerate(names)}, len(names)
    rows = np.zeros((n, k * k))
    rows[np.arange(n), [index[a] * k + index[b] for a, b in zip(ours, theirs, strict=True)]] = 1
    observed, value = agreement(list(ours), list(theirs))
    if math.isnan(value):
        return Interval(math.nan, math.nan, math.nan)
    by_chance = 1 - sum(ours.count(name) * theirs.count(name) for name in names) / n**2
    kappas = resampled(rows, lambda sums: _kappa(sums.reshape(-1, k, k)), seed=seed, draws=draws)
    return _scaled(value, 1 - observed, by_chance, kappas, items=n, most=n, level=level)


def krippendorff_alpha(
    labels_by_rater: Sequence[Sequence[str | None]], *, seed: int, draws: int = 2000, level: float = 0.95
) -> Interval:
    """Krippendorff's alpha for nominal labels, with a bootstrap interval over items.

    1 - observed disagreement / disagreement by chance; any number of raters, items with fewer than two
    labels are left out. NaN where all labels are one and the same, or fewer than two items are left. Where
    the raters agree on every item: as `kappa_interval`. Items are the unit: raters are taken as they are.

    Args:
        labels_by_rater: One row a rater, one entry an item, None where it gave no label.
        seed: Of the draws.
        draws: Resamples.
        level: Confidence level.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C.

    Raises:
        BadParameter: Rows of different lengths, no row, or a level that is none.
    """
    if not labels_by_rater:
        raise BadParameter("There is no rater.", "Pass one list of labels for each rater, two or more.")
    check_lengths(**{f"rater {i}": len(row) for i, row in enumerate(labels_by_rater, 1)})
    check_level(level)
    items = [[label for label in item if label is not None] for item in zip(*labels_by_rater, strict=True)]
    items = [item for item in items if len(item) > 1]
    names = sorted({label for item in items for label in item})
    if len(names) < 2 or len(items) < 2:
        return Interval(math.nan, math.nan, math.nan)
    counts = np.array([[float(item.count(name)) for name in names] for item in items])
    sizes = counts.sum(axis=1)
    rows = np.column_stack([(sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1), counts])
    n, total = counts.sum(), counts.sum(axis=0)
    value, observed = float(_alpha(rows.sum(axis=0)[None])[0]), float(rows[:, 0].sum() / n)
    by_chance = float((n**2 - (total**2).sum()) / (n * (n - 1)))
    alphas = resampled(rows, _alpha, seed=seed, draws=draws)
    return _scaled(value, observed, by_chance, alphas, items=len(items), most=int(n), level=level)


def group_parting(labels_by_rater: Sequence[Sequence[str | None]], inside: Sequence[bool], *, seed: int) -> Parting:
    """Whether raters of a group part from the others more than raters of one side part from each other.

    Disagreement is the share of the labels of two raters, on items that both labelled, that differ, pooled over the
    pairs of raters. Raters are the unit: p counts the groups of that size, of all that could be made of them, whose
    value is as large; exact up to 9,999, else from as many draws. NaN, and p 1, where no pair of either kind shares
    an item.

    Args:
        labels_by_rater: One row a rater, one entry an item, None where it gave no label.
        inside: For each rater, whether it is of the group.
        seed: Of the draws.

    Raises:
        BadParameter: Rows of different lengths, or the group holds no rater or all.
    """
    check_lengths(inside=len(inside), labels_by_rater=len(labels_by_rater))
    check_lengths(**{f"rater {i}": len(row) for i, row in enumerate(labels_by_rater, 1)})
    k, n = sum(inside), len(inside)
    if not 0 < k < n:
        raise BadParameter(f"A group of {k} of {n} raters leaves nobody to part from.", "Pass raters of both sides.")
    names = {name: i for i, name in enumerate(sorted({x for row in labels_by_rater for x in row if x is not None}))}
    codes = np.array([[-1 if x is None else names[x] for x in row] for row in labels_by_rater])
    shared, apart = np.zeros((n, n)), np.zeros((n, n))
    for one, other in combinations(range(n), 2):
        both = (codes[one] >= 0) & (codes[other] >= 0)
        shared[one, other], apart[one, other] = both.sum(), (codes[one] != codes[other])[both].sum()
    exact = math.comb(n, k) <= DEALINGS
    value = float(_parted(np.array([inside]), shared, apart)[0])
    if math.isnan(value):
        return Parting(value, 1.0, 1 / math.comb(n, k))
    if exact:
        held = np.array([[i in chosen for i in range(n)] for chosen in map(set, combinations(range(n), k))])
    else:
        rng = np.random.default_rng(seed)
        held = np.array([inside, *(rng.permutation(inside) for _ in range(DEALINGS))])
    # a dealing without a pair of either kind, or a tie in the last digit, counts against the group
    as_far = ~(_parted(held, shared, apart) < value - 1e-12)
    same = 2 if exact and 2 * k == n else 1  # the group and the others can change places
    return Parting(value, float(as_far.mean()), same / len(held))


def _parted(held: npt.NDArray[np.bool_], shared: Array, apart: Array) -> Array:
    """Disagreement across less within, for each row of who is inside; NaN where a kind of pair shares no item."""
    mine = held.astype(np.float64)

    def pooled(pairs: Array) -> tuple[Array, Array]:
        within = ((mine @ pairs) * mine).sum(1) + (((1 - mine) @ pairs) * (1 - mine)).sum(1)
        return pairs.sum() - within, within

    (differ_across, differ_within), (of_across, of_within) = pooled(apart), pooled(shared)
    counted = (of_across > 0) & (of_within > 0)
    across = np.divide(differ_across, of_across, out=np.full(len(held), np.nan), where=counted)
    return across - np.divide(differ_within, of_within, out=np.full(len(held), np.nan), where=counted)


def _scaled(
    value: float, observed: float, by_chance: float, estimates: Array, *, items: int, most: int, level: float
) -> Interval:
    """Limits of 1 - observed / by_chance, from those of the agreement 1 - observed with chance as it is.

    With chance as it is, a low agreement of lopsided raters would go below -1, where no coefficient can be.
    """
    error = float(np.nanstd(estimates)) * by_chance * math.sqrt(items / (items - 1))
    error = error if error > 1e-12 else 0.0
    least = 1 if error else items
    share = share_interval(1 - observed, error, least=least, most=most, df=items - 1, level=level)
    low, high = (max(-1.0, 1 - (1 - limit) / by_chance) for limit in (share.low, share.high))
    return Interval(value, low, high)


def _kappa(tables: Array) -> Array:
    """Kappa of each table of counts, ours down, theirs across."""
    n = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / n
    chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1) / n**2
    return np.divide(observed - chance, 1 - chance, out=np.full_like(n, np.nan), where=chance < 1)


def _alpha(sums: Array) -> Array:
    """Alpha of each row: pairs of a kind that disagree, then how often each label was given."""
    n = sums[:, 1:].sum(axis=1)
    by_chance = (n**2 - (sums[:, 1:] ** 2).sum(axis=1)) / (n - 1)
    return 1 - np.divide(sums[:, 0], by_chance, out=np.full_like(n, np.nan), where=by_chance > 0)
