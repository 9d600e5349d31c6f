"""Probes: what can be read off embeddings by a fresh classifier, each row by one that never saw its cluster."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["FOLDS", "Probe", "advantages", "out_of_fold"]

Probe = Literal["linear", "two_layer"]
Array = npt.NDArray[np.float64]

FOLDS = 5
WIDTH = 64
"""Of the hidden layer of the two-layer probe."""
SHUFFLES = 3
"""Probes of shuffled labels that chance is taken from."""


def out_of_fold(embeddings: Array, truth: Sequence[bool], clusters: Sequence[str], *, seed: int) -> list[float] | None:
    """Log odds of a yes from a logistic regression on the other folds; rows of a cluster are in one fold.

    Args:
        embeddings: What is read.
        truth: The answer of each row.
        clusters: What depends on each other.
        seed: Of the folds.

    Returns:
        One number a row, or None where either answer has fewer clusters than there are folds.

    Shape:
        embeddings (row, width).
    """
    held = Counter(true for true, _ in {*zip(truth, clusters, strict=True)})
    if min(held[True], held[False]) < FOLDS:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    found = cross_val_predict(
        probe, embeddings, np.array(truth), groups=np.array(clusters), cv=split, method="decision_function"
    )
    return [float(one) for one in np.asarray(found)]


def advantages(
    embeddings: Array, values: Sequence[str], clusters: Sequence[str], probe: Probe, *, seed: int
) -> Array:  # fmt: skip
    """By how much each row adds to what a probe reads; the mean is balanced accuracy less that of shuffled labels.

    Each row is predicted by a probe that was fitted without its cluster (five folds). A row counts by the inverse
    frequency of its value, so that every value weighs the same.

    Args:
        embeddings: What is read.
        values: Of the attribute, by row; each at least `FOLDS` times.
        clusters: Rows of one are never in both parts of a fold.
        probe: linear: logistic regression, of turned embeddings the same. two_layer: a hidden layer of 64 before it.
        seed: Of folds, shuffles and first weights.

    Shape:
        embeddings (row, width); result (row,).
    """
    draws = np.random.default_rng(seed)
    labels, embeddings = np.array(values), _scaled(embeddings)
    own = _hits(embeddings, labels, clusters, probe, seed)
    shuffled = [_hits(embeddings, draws.permutation(labels), clusters, probe, seed + k) for k in range(SHUFFLES)]
    return own - np.mean(shuffled, axis=0)


def _hits(embeddings: Array, labels: npt.NDArray[np.str_], clusters: Sequence[str], probe: Probe, seed: int) -> Array:
    """1 over the share of a row's value times the number of values where it is predicted rightly, else 0."""
    counts = Counter(labels.tolist())
    weights = np.array([len(labels) / len(counts) / counts[label] for label in labels.tolist()])
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that stops early is a probe
        warnings.simplefilter("ignore", UserWarning)  # shuffled labels of few clusters
        found = cross_val_predict(_classifier(probe, seed), embeddings, labels, groups=np.array(clusters), cv=split)
    return weights * (np.asarray(found) == labels)


def _classifier(probe: Probe, seed: int) -> BaseEstimator:
    if probe == "linear":
        return LogisticRegression(C=0.1, max_iter=300)
    return MLPClassifier((WIDTH,), alpha=1e-2, max_iter=40, random_state=seed, learning_rate_init=3e-3)


def _scaled(embeddings: Array) -> Array:
    """Centred, and all columns divided by one number: turned embeddings stay turned embeddings."""
    centred = embeddings - embeddings.mean(axis=0)
    return centred / max(float(centred.std()), 1e-12)
