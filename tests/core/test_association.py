"""Associations of embeddings with groups: numbers worked out by hand, laws, and a probe that finds what is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.association import effect_size, group_means, permutation_p, told_apart
from vlmend.errors import BadParameter


def test_means_are_within_captions_so_a_group_that_is_there_more_often_weighs_no_more() -> None:
    """Of nurses 3 women and 1 man, all at cosine 0.9; of cooks 1 and 1, at 0.1: no gap, where plain means have 0.2."""
    cosines = np.array([[0.9, 0.9, 0.9, 0.9, 0.1, 0.1]])
    groups, strata = ["w", "w", "w", "m", "w", "m"], ["nurse"] * 4 + ["cook"] * 2
    assert group_means(cosines, groups, strata, ["m", "w"])[0].tolist() == pytest.approx([0.5, 0.5])
    assert cosines[0, [0, 1, 2, 4]].mean() - cosines[0, [3, 5]].mean() == pytest.approx(0.2)
    alone = group_means(cosines, ["w"] * 4 + ["m"] * 2, strata, ["m", "w"])
    assert np.isnan(alone).all()


def test_an_effect_size_by_hand() -> None:
    """Means 2.5 and 0.5 of (2, 3) and (0, 1); the deviation of 0, 1, 2, 3 is sqrt(5 / 3): 2 / 1.29099 = 1.54919."""
    found = effect_size([2.0, 3.0, 0.0, 1.0], [True, True, False, False], list("abcd"), seed=0)
    assert found.value == pytest.approx(1.54919, abs=1e-5)
    assert found.low <= found.value <= found.high


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=12).filter(lambda xs: len(xs) % 2 == 0 and np.ptp(xs) > 1e-3))
def test_swapping_the_sets_negates_it_and_it_stays_below_2(values: list[float]) -> None:
    first = [k % 2 == 0 for k in range(len(values))]
    one = effect_size(values, first, range(len(values)), seed=0, draws=20).value
    two = effect_size(values, [not side for side in first], range(len(values)), seed=0, draws=20).value
    assert one == pytest.approx(-two, abs=1e-9)
    assert abs(one) < 2


def test_sets_that_do_not_differ_have_no_effect_size() -> None:
    assert math.isnan(effect_size([0.0] * 4, [True, True, False, False], list("abcd"), seed=0).value)
    assert math.isnan(effect_size([1.0, 2.0], [True, True], list("ab"), seed=0).value)


def test_p_is_exact_over_all_partitions_of_three_and_three() -> None:
    """Of 20 partitions one is as large as that of 4, 5, 6 against 1, 2, 3; all are for the reverse."""
    assert permutation_p([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], seed=0) == pytest.approx(1 / 20)
    assert permutation_p([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], seed=0) == pytest.approx(1.0)
    with pytest.raises(BadParameter, match="Sets of 1 and 2"):
        permutation_p([1.0], [1.0, 2.0], seed=0)


def test_a_probe_finds_a_hidden_mark_and_nothing_in_noise() -> None:
    """400 items of 20 captions: noise is told right in half of them, within 3.5 deviations of a fair coin."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((400, 16))
    groups, strata = ["m" if k % 2 else "w" for k in range(400)], [str(k // 20) for k in range(400)]
    assert abs(told_apart(noise, groups, strata).mean() - 0.5) < 3.5 * 0.5 / math.sqrt(400)
    marked = np.concatenate([noise, [[3.0 if group == "m" else -3.0] for group in groups]], axis=1)
    assert told_apart(marked, groups, strata).all()
    turn = np.linalg.qr(rng.standard_normal((17, 17))).Q
    assert (told_apart(marked @ turn, groups, strata) == told_apart(marked, groups, strata)).all()


def test_a_probe_needs_captions_that_it_never_saw() -> None:
    with pytest.raises(BadParameter, match="one stratum"):
        told_apart(np.eye(4), ["a", "b", "a", "b"], ["x"] * 4)
    with pytest.raises(BadParameter, match=r"Only . would be left"):
        told_apart(np.eye(4), ["a", "a", "b", "b"], ["x", "x", "y", "y"])
