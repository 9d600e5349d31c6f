"""Separation of members from non-members: counts by hand, scikit-learn's ROC, chance exactly, clusters as units."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from vlmend.core.metrics.membership import right_by_halves, roc, separation, tpr_at, tpr_by_chance

FLOATS = st.floats(-5, 5).map(lambda x: round(x, 1))


def alone(scores: list[float], name: str) -> dict[str, list[float]]:
    return {f"{name}{k}": [score] for k, score in enumerate(scores)}


def test_the_true_positive_rate_allows_one_false_alarm_in_a_hundred() -> None:
    others = [float(k) for k in range(100)]  # above 98 there is one, which may be
    assert tpr_at([98.0, 98.5, 99.0, 120.0], others) == 0.75
    assert tpr_at([98.0], [float(k) for k in range(99)]) == 0.0  # of 99 none may, and 98 is the highest of them


@given(st.lists(FLOATS, min_size=1, max_size=30), st.lists(FLOATS, min_size=100, max_size=230))
def test_it_is_the_best_point_of_the_roc_curve_with_so_few_false_alarms(
    members: list[float], others: list[float]
) -> None:
    truth = [1] * len(members) + [0] * len(others)
    fpr, tpr, _ = roc_curve(truth, members + others, drop_intermediate=False)
    assert tpr_at(members, others) == pytest.approx(max(tpr[fpr <= 0.01 + 1e-12]))


def test_by_chance_it_is_a_count_of_places() -> None:
    assert tpr_by_chance(100) == pytest.approx(2 / 101)
    assert tpr_by_chance(400) == pytest.approx(5 / 401)
    rng = np.random.default_rng(0)
    found = [tpr_at(rng.normal(size=50), rng.normal(size=100)) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(2 / 101, abs=4 * np.std(found) / math.sqrt(2000))


def test_a_threshold_is_chosen_on_the_other_half() -> None:
    # word_fraction: m2 .16 and o1 .14 lie in the first half, m0 .89 and o0 .91 in the second.
    members, others = {"m2": [1.0], "m0": [5.0]}, {"o1": [0.0], "o0": [4.0]}
    # The second half says "from 4.5 on": m2 is missed, o1 right. The first says "from 0.5 on": m0 right, o0 wrong.
    right, wrong = right_by_halves(members, others)
    assert {name: list(found) for name, found in right.items()} == {"m2": [0], "m0": [1]}
    assert {name: list(found) for name, found in wrong.items()} == {"o1": [1], "o0": [0]}


def test_scores_that_tell_nothing_are_at_chance_and_perfect_ones_at_one() -> None:
    rng = np.random.default_rng(1)
    noise = separation(alone(list(rng.normal(size=200)), "m"), alone(list(rng.normal(size=200)), "o"), seed=0)
    assert noise.auroc.low < 0.5 < noise.auroc.high
    assert noise.accuracy.low < 0.5 < noise.accuracy.high
    assert noise.tpr.low <= tpr_by_chance(200) <= noise.tpr.high
    apart = separation(alone(list(rng.normal(9, 1, 200)), "m"), alone(list(rng.normal(size=200)), "o"), seed=0)
    assert [found.value for found in apart] == [1.0, 1.0, 1.0]
    assert apart.auroc.low == pytest.approx(0.981, abs=1e-3)  # Wilson, 200 of 200


def test_copies_of_a_cluster_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    scores = [list(rng.normal(centre, 1, 60)) for centre in (0.5, 0.0)]
    single = separation(alone(scores[0], "m"), alone(scores[1], "o"), seed=0).auroc
    copied = [
        {name: found * 5 for name, found in alone(of, kind).items()} for of, kind in zip(scores, "mo", strict=True)
    ]
    assert separation(copied[0], copied[1], seed=0).auroc == pytest.approx(single)
    split = [{f"{name}-{k}": of for name, of in alone(of, kind).items() for k in range(5)} for of, kind in
             zip(scores, "mo", strict=True)]  # fmt: skip
    narrow = separation(split[0], split[1], seed=0).auroc
    assert narrow.high - narrow.low < 0.6 * (single.high - single.low)


def test_too_few_are_no_number() -> None:
    few = separation(alone([1.0, 2.0], "m"), alone([0.0] * 99, "o"), seed=0)
    assert math.isnan(few.tpr.value)
    assert few.auroc.value == 1.0
    one = separation(alone([1.0], "m"), alone([0.0] * 99, "o"), seed=0)
    assert all(math.isnan(found.value) for found in one)


@given(st.lists(FLOATS, min_size=1, max_size=20), st.lists(FLOATS, min_size=1, max_size=60))
def test_roc_points_are_those_of_scikit_learn_and_end_where_all_are_called_members(
    members: list[float], others: list[float]
) -> None:
    truth = [1] * len(members) + [0] * len(others)
    fpr, tpr, _ = roc_curve(truth, members + others, drop_intermediate=False)
    known = {(round(x, 9), round(y, 9)) for x, y in zip(fpr, tpr, strict=True)}
    found = roc(members, others)
    assert found[-1] == (1.0, 1.0)
    assert found == sorted(found)
    assert all((round(x, 9), round(y, 9)) in known for x, y in found)


def test_roc_points_by_hand() -> None:
    assert roc([3.0, 1.5], [1.0, 2.0]) == [(0.5, 1.0), (1.0, 1.0)]
    assert roc([], [1.0]) == roc([1.0], []) == []
