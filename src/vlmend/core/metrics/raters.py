"""Agreement of raters with intervals: Cohen's kappa for two, Krippendorff's alpha for any number.

`stats.agreement` gives the two numbers of a pair of label lists without an interval.

Both coefficients are 1 - disagreement / disagreement by chance. The bootstrap gives their standard error; the
interval is that of the agreement, a share (`stats.share_interval`), brought to the scale of the coefficient.
Percentile intervals were measured too: they cover less where agreement is high, and are of zero width where no
item differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.resampling import resampled
from vlmend.core.metrics.stats import Interval, agreement, check_lengths, check_level, share_interval
from vlmend.errors import BadParameter

__all__ = ["kappa_interval", "krippendorff_alpha"]

Array = npt.NDArray[np.float64]


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
