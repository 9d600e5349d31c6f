"""How strongly embeddings of neutral things lean to one of several groups, and what chance alone would give.

An association is the cosine of a target with what stands for one group less the cosine with what stands for another.
Its means are compared, never raw distances: an encoder's pictures and texts lie far apart whoever is in them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import permutation_test

from vlmend.core.metrics.resampling import expanded_percentile, resampled
from vlmend.core.metrics.stats import Interval
from vlmend.errors import BadParameter

__all__ = ["effect_size", "group_means", "permutation_p", "told_apart"]

Array = npt.NDArray[np.float64]

DRAWS = 9999
"""Partitions drawn where there are more than that."""

FOLDS = 5

PENALTIES = tuple(float(10.0**power) for power in range(-2, 6))
"""Of the probe, for numbers of deviation 1."""


def group_means(cosines: Array, groups: Sequence[str], strata: Sequence[str], names: Sequence[str]) -> Array:
    """Mean cosine of each target with each group: means within strata that hold every group, then over these.

    So a group that is in some strata only, or more often, weighs no more there: a text on nurses is near pictures of
    nurses whoever they show.

    Shape: cosines "target item", result "target group"; NaN where no stratum holds every group.
    """
    own, of = np.asarray(groups), np.asarray(strata)
    means = [
        np.stack([cosines[:, (own == name) & (of == stratum)].mean(1) for name in names], axis=1)
        for stratum in dict.fromkeys(strata)
        if all(((own == name) & (of == stratum)).any() for name in names)
    ]
    return np.mean(means, axis=0) if means else np.full((len(cosines), len(names)), math.nan)


def effect_size(
    associations: Sequence[float], first: Sequence[bool], clusters: Sequence[Hashable], *, seed: int, draws: int = 2000
) -> Interval:
    """WEAT's d: mean association of the first set less that of the second, over the standard deviation of all.

    The deviation is that of a sample (n - 1), so with sets of one size |d| stays below 2. Interval: whole clusters are
    drawn again; below about ten of them it lies too high. NaN throughout where a set is empty or nothing differs.

    Source: Caliskan, Bryson, Narayanan, Science 356, 2017.
    """
    values, is_first = np.asarray(associations, np.float64), np.asarray(first, np.bool_)
    names = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([names[name] for name in clusters], dtype=np.int64)
    columns = (is_first, is_first * values, ~is_first, ~is_first * values, values**2)
    rows = np.stack([np.bincount(member, column, len(names)) for column in columns], axis=1).astype(np.float64)
    value = float(_d(rows.sum(0)[None])[0]) if len(values) else math.nan
    if math.isnan(value):
        return Interval(math.nan, math.nan, math.nan)
    return expanded_percentile(resampled(rows, _d, seed=seed, draws=draws), value, len(rows), 0.95)


def permutation_p(first: Sequence[float], second: Sequence[float], *, seed: int) -> float:
    """One-sided p of WEAT: the share of partitions of all associations whose difference of means is as large.

    Exact where there are at most 9,999 partitions, else from as many draws (the smallest p is then 0.0001).

    Source: scipy `permutation_test`, independent samples.

    Raises:
        BadParameter: A set holds fewer than two.
    """
    if min(len(first), len(second)) < 2:
        raise BadParameter(
            f"Sets of {len(first)} and {len(second)} associations have no p.", "Pass two or more of each kind."
        )
    found = permutation_test(
        (np.asarray(first, np.float64), np.asarray(second, np.float64)), _difference, vectorized=True,
        n_resamples=DRAWS, alternative="greater", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def told_apart(embeddings: Array, groups: Sequence[str], strata: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether a linear probe that never saw its stratum tells the group of each item.

    A ridge classifier, each group weighing alike, fitted anew for each of up to five folds of whole strata. How much
    it holds back is chosen by leave-one-out among what it learns from, so the size of the numbers does not matter.

    Shape: embeddings "item width", result "item".

    Raises:
        BadParameter: There are fewer than two strata, or a fold leaves a single group to learn from.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import GroupKFold

    own, of = np.asarray(groups), np.asarray(strata)
    centred = embeddings - embeddings.mean(0)
    scaled = centred / max(float(centred.std()), 1e-12)
    several = len(set(strata))
    if several < 2:
        raise BadParameter("All items are of one stratum, so none is left to test a probe on.", "Pass two or more.")
    right = np.zeros(len(own), dtype=np.bool_)
    for seen, unseen in GroupKFold(min(FOLDS, several)).split(scaled, own, of):
        if len(set(own[seen])) < 2:
            raise BadParameter(
                f"Only {own[seen][0]} would be left to learn a probe from.", "Pass each group in several strata."
            )
        probe = RidgeClassifierCV(alphas=PENALTIES, class_weight="balanced").fit(scaled[seen], own[seen])
        right[unseen] = probe.predict(scaled[unseen]) == own[unseen]
    return right


def _d(sums: Array) -> Array:
    """Effect sizes from sums of: being first, associations of the first, the same of the second, their squares."""
    n_first, first, n_second, second, squares = sums.T
    n = n_first + n_second
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (squares - (first + second) ** 2 / n) / (n - 1)
        found = (first / n_first - second / n_second) / np.sqrt(variance)
    return np.where(variance > 1e-12 * squares, found, math.nan)


def _difference(first: Array, second: Array, axis: int) -> Array:
    return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))
