"""A linear probe that never judges what it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["FOLDS", "out_of_fold"]

FOLDS = 5


def out_of_fold(
    inputs: Float[np.ndarray, "row width"], truth: Sequence[bool], clusters: Sequence[str], *, seed: int
) -> list[float] | None:
    """Log odds of a yes from a logistic regression on the other folds; rows of a cluster are in one fold.

    Args:
        inputs: What it reads.
        truth: The answer of each row.
        clusters: What depends on each other.
        seed: Of the folds.

    Returns:
        One number a row, or None where either answer has fewer clusters than there are folds.
    """
    answers = np.array(truth)
    held = [len({one for one, true in zip(clusters, truth, strict=True) if true is answer}) for answer in (True, False)]
    if min(held) < FOLDS:
        return None
    found = np.empty(len(answers))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, judged in folds.split(inputs, answers, list(clusters)):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        found[judged] = probe.fit(inputs[fitted], answers[fitted]).decision_function(inputs[judged])
    return [float(one) for one in found]
