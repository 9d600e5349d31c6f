"""MIG, DCI and unfairness on codes that are known: a factor an axis, turned, doubled, permuted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.metrics.disentangling import dci, mig, mutual_information, unfairness

GRID = np.array(list(itertools.product(range(4), range(4))) * 20, np.float64)
"""Two independent, uniform factors of four values, each cell 20 times."""

FIRST, SECOND = ([str(value) for value in GRID[:, k]] for k in range(2))

CLUSTERS = [str(k) for k in range(len(GRID))]


def test_an_axis_a_factor_is_one_throughout() -> None:
    assert mig(GRID, FIRST) == pytest.approx(1.0)
    assert mig(GRID, SECOND) == pytest.approx(1.0)
    found = dci(GRID, [FIRST, SECOND], CLUSTERS, seed=0)
    assert found.disentanglement == pytest.approx(1.0, abs=0.02)
    assert found.completeness == pytest.approx(1.0, abs=0.02)
    assert found.accuracy == 1.0


def test_two_factors_turned_by_45_degrees_have_no_gap() -> None:
    turned = GRID @ np.array([[1, -1], [1, 1]]) / math.sqrt(2)
    assert mig(turned, FIRST) == pytest.approx(0.0, abs=1e-9)
    assert dci(turned, [FIRST, SECOND], CLUSTERS, seed=0).disentanglement < 0.2


def test_a_doubled_axis_has_no_gap_and_stays_disentangled() -> None:
    doubled = np.concatenate([GRID, GRID[:, :1]], axis=1)
    assert mig(doubled, FIRST) == pytest.approx(0.0)
    found = dci(doubled, [FIRST, SECOND], CLUSTERS, seed=0)
    assert found.disentanglement == pytest.approx(1.0, abs=0.02)
    assert found.completeness < 0.9


def test_the_information_of_a_factor_about_itself_is_its_entropy() -> None:
    assert mutual_information(GRID, FIRST) == pytest.approx([math.log(4), 0.0])


def test_a_factor_of_one_value_has_no_gap() -> None:
    assert math.isnan(mig(GRID, ["same"] * len(GRID)))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 1000))
def test_the_order_of_axes_changes_nothing(order: list[int], seed: int) -> None:
    codes = np.random.default_rng(seed).normal(size=(60, 5))
    factor = [str(k % 3) for k in range(60)]
    assert mig(codes[:, order], factor) == pytest.approx(mig(codes, factor))


def test_unfairness_by_hand() -> None:
    """Of all half are said yes to; of men three quarters, of women one quarter: both lie a quarter away."""
    said = ["yes", "yes", "yes", "no", "yes", "no", "no", "no"]
    assert unfairness(said, ["man"] * 4 + ["woman"] * 4) == pytest.approx(0.25)
    assert unfairness(said, ["man", "man", "woman", "woman", "woman", "woman", "man", "man"]) == pytest.approx(0.0)


def test_a_weight_is_a_repeated_item() -> None:
    codes = np.random.default_rng(0).normal(size=(30, 3))
    factor, weights = [str(k % 2) for k in range(30)], np.array([1.0, 2.0, 3.0] * 10)
    repeated = np.repeat(np.arange(30), weights.astype(int))
    assert mig(codes, factor, weights) == pytest.approx(mig(codes[repeated], [factor[k] for k in repeated]))
