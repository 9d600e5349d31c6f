"""How far an attack that was made on one model carries over to another.

An attack lifts the share of wrong answers above that of the same rows changed as much at random. The transfer ratio is
the lift on a target over the lift on the model that the attack was made on (Chen et al., arXiv 2404.03411; Schaeffer et
al., arXiv 2407.15211, ICLR 2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.resampling import expanded_percentile, resampled
from vlmend.core.metrics.stats import Interval, check_lengths

__all__ = ["crossed_mean", "transfer_ratio"]

LOST = 0.025
"""Share of resamples without any lift on the source from which on nothing is said about the ratio's limits."""
DRAWS = 2000


def transfer_ratio(source: Sequence[int], target: Sequence[int], *, seed: int) -> Interval:
    """Lift on a target over lift on the source, with an interval from resampling rows.

    Args:
        source: For each row wrong under attack less wrong at random, -1 to 1, on the model that was attacked.
        target: The same of the same rows on another model.
        seed: Of the draws.

    Returns:
        NaN where the attack lifts nothing on its source; NaN limits where resamples often say so, or never differ.

    Raises:
        BadParameter: Different lengths.
    """
    check_lengths(source=len(source), target=len(target))
    if sum(source) <= 0:
        return Interval(math.nan, math.nan, math.nan)
    rows = np.array([source, target], dtype=np.float64).T
    value = float(rows[:, 1].sum() / rows[:, 0].sum())
    drawn = resampled(rows, _ratio, seed=seed, draws=DRAWS)
    if np.isnan(drawn).mean() > LOST:
        return Interval(value, math.nan, math.nan)
    return expanded_percentile(drawn, value, len(rows), 0.95)


def crossed_mean(values: npt.NDArray[np.float64], *, seed: int) -> Interval:
    """Mean over models and rows, with an interval from resampling both, each model with the same rows.

    Args:
        values: "model row".
        seed: Of the draws.

    Returns:
        NaN limits with one model or one row, since nothing tells how others would differ; NaN of none.
    """
    models, rows = values.shape
    if not values.size:
        return Interval(math.nan, math.nan, math.nan)
    value = float(values.mean())
    if min(models, rows) < 2:
        return Interval(value, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = [
        values[rng.integers(models, size=models)][:, rng.integers(rows, size=rows)].mean() for _ in range(DRAWS)
    ]  # fmt: skip
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _ratio(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(sums[..., 1], sums[..., 0], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 0] > 0)
