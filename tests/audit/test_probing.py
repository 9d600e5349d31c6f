"""A probe that never judges what it was fitted on: rows of a cluster stay together, few clusters give none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vlmend.audit.probing import FOLDS, out_of_fold


def test_what_can_be_read_off_is_found() -> None:
    rng = np.random.default_rng(0)
    truth = [bool(k % 2) for k in range(60)]
    inputs = rng.normal(size=(60, 4)) + 3 * np.array(truth)[:, None]
    scores = out_of_fold(inputs, truth, [str(k) for k in range(60)], seed=0)
    assert scores is not None
    assert roc_auc_score(truth, scores) > 0.98


def test_a_person_that_is_known_by_heart_helps_nobody() -> None:
    """Four pictures a person tell the person alone, and answers are by chance: in-sample 1.0, here as by chance."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 4)
    answers = rng.permutation(np.arange(40) % 2 == 0)[people]
    inputs = np.eye(40)[people] + rng.normal(0, 0.01, (160, 40))
    scores = out_of_fold(inputs, [bool(one) for one in answers], [str(one) for one in people], seed=0)
    assert scores is not None
    assert abs(roc_auc_score(answers, scores) - 0.5) < 0.25  # 40 people by chance: 0.09 either way


@pytest.mark.parametrize(("clusters", "made"), [(FOLDS, True), (FOLDS - 1, False)])
def test_fewer_people_of_an_answer_than_folds_give_no_probe(clusters: int, made: bool) -> None:
    truth = [True] * clusters + [False] * 20
    scores = out_of_fold(
        np.random.default_rng(0).normal(size=(len(truth), 3)), truth, [*map(str, range(len(truth)))], seed=0
    )
    assert (scores is not None) is made
