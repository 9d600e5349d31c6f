"""The transfer ratio and the mean over models and rows, by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.transfer import crossed_mean, transfer_ratio
from vlmend.errors import BadParameter


def test_the_ratio_is_the_lift_on_the_target_over_that_on_the_source() -> None:
    """10 rows: the attack turns 8 on its source and 4 of those on the target: 4/8."""
    found = transfer_ratio([1] * 8 + [0] * 2, [1] * 4 + [0] * 6, seed=0)
    assert found.value == 0.5
    assert 0.1 < found.low < 0.5 < found.high < 0.9


@given(st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=60))
def test_a_copy_of_the_source_has_a_ratio_of_exactly_one(lifts: list[int]) -> None:
    found = transfer_ratio(lifts, lifts, seed=0)
    assert found.value == 1.0 if sum(lifts) > 0 else math.isnan(found.value)


def test_where_nothing_is_lifted_on_the_source_there_is_no_ratio() -> None:
    assert math.isnan(transfer_ratio([0, 0, 1, -1], [1, 1, 1, 1], seed=0).value)
    assert math.isnan(transfer_ratio([1, 0, 0, -1, 1], [1, 0, 0, 0, 0], seed=0).low)


def test_independent_verdicts_are_no_transfer() -> None:
    """Right or wrong by a coin, at random and under attack alike: the interval of the mean lift holds 0."""
    rng = random.Random(0)
    lifts = [[rng.randint(0, 1) - rng.randint(0, 1) for _ in range(200)] for _ in range(3)]
    found = crossed_mean(np.array(lifts, dtype=float), seed=0)
    assert found.low < 0 < found.high


def test_the_mean_is_over_models_and_rows_and_one_model_has_no_limits() -> None:
    values = np.array([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    assert crossed_mean(values, seed=0).value == 0.5
    assert math.isnan(crossed_mean(values[:1], seed=0).low)
    assert math.isnan(crossed_mean(values[:0], seed=0).value)


def test_the_interval_holds_that_models_differ() -> None:
    """Two models that are told apart by every row: resampling rows alone would see no spread at all."""
    values = np.array([[1.0] * 50, [0.0] * 50])
    found = crossed_mean(values, seed=0)
    assert (found.low, found.high) == (0.0, 1.0)


def test_rows_must_be_the_same() -> None:
    with pytest.raises(BadParameter):
        transfer_ratio([1], [1, 0], seed=0)
