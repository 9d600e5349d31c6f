"""Scores of what is known, and how well they tell it apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score, roc_curve

from vlmend.core.metrics.detection import auroc, detection, detection_over, fpr_at, max_logit, mcm, threshold_keeping
from vlmend.errors import BadParameter

scores = arrays(np.float64, st.integers(2, 30), elements=st.integers(0, 9).map(float))


def test_matching_by_hand() -> None:
    """Cosines 0.5 and 0 at temperature 1: e^0.5 / (e^0.5 + 1)."""
    cosines = torch.tensor([[0.5, 0.0]])
    assert mcm(cosines).item() == pytest.approx(math.exp(0.5) / (math.exp(0.5) + 1))
    assert mcm(cosines, 0.5).item() == pytest.approx(math.e / (math.e + 1))


def test_matching_lies_between_its_bounds_and_equal_names_share_it() -> None:
    cosines = torch.rand(50, 1000) * 2 - 1
    found = mcm(cosines)
    assert bool(((found >= 1 / 1000) & (found <= math.e / (math.e + 999 / math.e))).all())
    assert mcm(torch.full((1, 8), 0.3)).item() == pytest.approx(1 / 8)


def test_a_shift_moves_the_largest_logit_and_not_the_matching() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(max_logit(logits + 2), max_logit(logits) + 2)
    torch.testing.assert_close(mcm(logits + 2), mcm(logits))


def test_a_threshold_keeps_nineteen_of_twenty() -> None:
    known = [float(k) for k in range(20)]
    assert threshold_keeping(known) == 1
    assert fpr_at(known, [0.0, 0.5, 1.0, 2.0]) == 0.5
    assert threshold_keeping(known, 1.0) == 0


@given(scores, scores)
def test_area_and_false_positive_rate_are_those_of_scikit_learn(known: np.ndarray, other: np.ndarray) -> None:
    labels = np.repeat([1, 0], [len(known), len(other)])
    found = np.concatenate([known, other])
    assert auroc(known, other) == pytest.approx(roc_auc_score(labels, found))
    false, true, _ = roc_curve(labels, found, drop_intermediate=False)
    assert fpr_at(known, other) == pytest.approx(float(false[np.argmax(true >= 0.95 - 1e-9)]))


@given(scores, scores)
def test_turning_the_score_turns_the_area(known: np.ndarray, other: np.ndarray) -> None:
    assert auroc(known, other) + auroc(-known, -other) == pytest.approx(1)
    assert auroc(known, known) == pytest.approx(0.5)


def test_intervals_hold_the_truth_and_shrink() -> None:
    """Normal scores one standard deviation apart: the area is Phi(1 / sqrt 2) = 0.760."""
    rng = np.random.default_rng(1)
    wide, narrow = (detection(rng.normal(1, 1, n), rng.normal(0, 1, n), seed=0, draws=200).auroc for n in (40, 640))
    assert wide.low < 0.760 < wide.high
    assert narrow.low < 0.760 < narrow.high
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_no_spread_is_no_certainty() -> None:
    apart = detection([2.0, 3.0] * 5, [0.0, 1.0] * 10, seed=0, draws=50)
    assert apart.auroc.value == apart.auroc.high == 1
    assert apart.auroc.low == pytest.approx(0.722, abs=1e-3)  # Wilson for 10 of 10
    assert (apart.fpr95.value, round(apart.fpr95.high, 3)) == (0, 0.278)
    same = detection([1.0] * 9, [1.0] * 9, seed=0, draws=50).auroc
    assert same.value == 0.5
    assert math.isnan(same.low)


def test_too_few_or_broken_scores_are_refused() -> None:
    with pytest.raises(BadParameter, match="1 known and 2 other"):
        detection([1.0], [1.0, 2.0], seed=0)
    with pytest.raises(BadParameter, match="finite"):
        detection([1.0, math.nan], [1.0, 2.0], seed=0)


def test_several_wordings_give_their_mean_and_their_spread() -> None:
    """The first wording tells all (AUROC 1, FPR 0), the second nothing right (0 and 1): halves on average, 1 apart."""
    known = np.array([[2.0, 0.0], [3.0, 0.1], [4.0, 0.2]])
    other = np.array([[0.0, 1.0], [0.1, 2.0], [0.2, 3.0]])
    found = detection_over(known, other, seed=0)
    assert {name: (one.mean.value, one.spread.value) for name, one in found.items()} == {
        "auroc": (0.5, 1.0),
        "fpr95": (0.5, 1.0),
    }


def test_one_wording_twice_does_not_spread_and_its_mean_is_its_own() -> None:
    rng = np.random.default_rng(0)
    known, other = rng.normal(1, 1, 60), rng.normal(0, 1, 40)
    found = detection_over(np.stack([known] * 2, 1), np.stack([other] * 2, 1), seed=0)["auroc"]
    assert found.spread.value == 0
    assert math.isnan(found.spread.low)
    alone = detection(known, other, seed=0).auroc
    assert found.mean.value == pytest.approx(alone.value)
    assert (found.mean.low, found.mean.high) == pytest.approx((alone.low, alone.high), abs=0.03)
