"""How far single axes of a representation stand for single factors: MIG and DCI; and how unfair decisions are.

Codes are numbers of each item, "item axis"; a factor is a value of each item, such as the gender of who is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "DCI", "dci", "mig", "mutual_information", "unfairness"]

Array = npt.NDArray[np.float64]

BINS = 20
"""Of each axis, as in the source of MIG."""

TREES = 60
"""Of the forest behind DCI, where there are as many items."""


class DCI(NamedTuple):
    """Disentanglement, completeness, and informativeness as accuracy on items that were not learnt from."""

    disentanglement: float
    completeness: float
    accuracy: float


def mutual_information(codes: Array, factor: Sequence[str], weights: Array | None = None) -> Array:
    """Of each axis with the factor, in nats, from histograms of `BINS` equal widths.

    Shape:
        codes "item axis", weights "item" (how often each counts), result "axis".
    """
    own = np.unique(np.asarray(factor), return_inverse=True)[1]
    count = np.ones(len(own)) if weights is None else weights
    values = int(own.max()) + 1
    return np.array([_information(_binned(axis), own, values, count) for axis in codes.T])


def mig(codes: Array, factor: Sequence[str], weights: Array | None = None) -> float:
    """Mutual information gap of one factor: (largest less second largest over the axes) / entropy of the factor.

    Source: Chen et al., 2018 (beta-TCVAE).
    """
    shares = np.bincount(np.unique(np.asarray(factor), return_inverse=True)[1], weights).astype(np.float64)
    shares = shares[shares > 0] / shares.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    if entropy <= 0:
        return float("nan")
    found = np.sort(mutual_information(codes, factor, weights))[::-1]
    second = found[1] if len(found) > 1 else 0.0
    return float((found[0] - second) / entropy)


def dci(codes: Array, factors: Sequence[Sequence[str]], clusters: Sequence[str], *, seed: int) -> DCI:
    """Which axes a forest reads each factor from.

    Importances R[axis, factor]: disentanglement is the mean over axes, by their importance, of 1 - entropy of an axis's
    row (base: factors); completeness that over factors of 1 - entropy of a column (base: axes). Accuracy is balanced,
    of whole clusters that were left out, mean over factors.

    Source: Eastwood and Williams, ICLR 2018; forests in the place of their regressors.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GroupKFold

    folds = list(GroupKFold(min(3, len(set(clusters)))).split(codes, groups=np.asarray(clusters)))
    columns: list[Array] = []
    right: list[float] = []
    for factor in factors:
        own = np.asarray(factor)
        said = np.empty_like(own)
        parts: list[Array] = []
        for seen, unseen in folds:
            forest = ExtraTreesClassifier(min(TREES, len(codes)), random_state=seed, n_jobs=1, min_samples_leaf=2)
            forest.fit(codes[seen], own[seen])
            said[unseen] = forest.predict(codes[unseen])
            parts.append(np.asarray(forest.feature_importances_, np.float64))
        columns.append(np.mean(parts, axis=0))
        right.append(float(balanced_accuracy_score(own, said)))
    table = np.stack(columns, axis=1)
    return DCI(_pure(table), _pure(table.T), float(np.mean(right)))


def unfairness(decisions: Sequence[str], sensitive: Sequence[str], weights: Array | None = None) -> float:
    """Mean over groups of the total variation between the decisions of all and of the group; 0 to 1.

    Source: Locatello et al., NeurIPS 2019, arXiv 1905.13662.
    """
    said = np.unique(np.asarray(decisions), return_inverse=True)[1]
    own = np.unique(np.asarray(sensitive), return_inverse=True)[1]
    count = np.ones(len(own)) if weights is None else weights
    every = _shares(said, count, int(said.max()) + 1)
    apart = [
        0.5 * np.abs(_shares(said, count * (own == g), len(every)) - every).sum()
        for g in range(int(own.max()) + 1)
        if (count * (own == g)).sum() > 0
    ]
    return float(np.mean(apart))


def _shares(places: npt.NDArray[np.intp], weights: Array, size: int) -> Array:
    held = np.bincount(places, weights, size)
    return held / held.sum()


def _binned(axis: Array) -> npt.NDArray[np.intp]:
    low, high = float(axis.min()), float(axis.max())
    if high - low <= 1e-12:
        return np.zeros(len(axis), np.intp)
    return np.minimum(((axis - low) / (high - low) * BINS).astype(np.intp), BINS - 1)


def _information(binned: npt.NDArray[np.intp], own: npt.NDArray[np.intp], values: int, weights: Array) -> float:
    joint = np.bincount(binned * values + own, weights, BINS * values).reshape(BINS, values)
    joint = joint / joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())


def _pure(table: Array) -> float:
    """Mean over rows, by their sums, of 1 - entropy of the row to the base of its length; 1 for a single column."""
    width = table.shape[1]
    if width < 2:
        return 1.0
    sums = table.sum(1)
    shares = table / np.maximum(sums[:, None], 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(shares > 0, shares * np.log(shares), 0.0).sum(1) / np.log(width)
    return float((sums / sums.sum() * (1 - entropy)).sum())
