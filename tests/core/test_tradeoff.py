"""Curves of harm over price: hulls and gaps worked out by hand, and what the bootstrap finds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.tradeoff import Traced, gap_interval, hull, mean_gap
from vlmend.errors import BadParameter

RATES = st.floats(0, 1).map(lambda value: round(value, 3))


def test_a_hull_drops_points_above_the_line_and_beyond_the_lowest() -> None:
    points = [(0.1, 0.5), (0.2, 0.45), (0.3, 0.1), (0.5, 0.1), (0.6, 0.2), (0.1, 0.6), (math.nan, 0.0)]
    assert hull(points) == [(0.1, 0.5), (0.3, 0.1)]


def test_a_gap_worked_out_by_hand() -> None:
    curve, other = [(0.1, 0.5), (0.3, 0.1)], [(0.1, 0.5), (0.5, 0.3)]
    # both reach 0.1 to 0.3, where the gap goes from 0 to 0.4 - 0.1 = 0.3
    assert mean_gap(curve, other) == pytest.approx(0.15)
    assert mean_gap(other, curve) == pytest.approx(-0.15)
    assert mean_gap([(0.1, 0.2)], [(0.1, 0.5)]) == pytest.approx(0.3)
    assert mean_gap([(0.4, 0.2)], curve) == pytest.approx(-0.1)  # curve ended at 0.3 and stays at 0.1
    assert math.isnan(mean_gap([], other))


@given(st.lists(st.tuples(RATES, RATES), min_size=1, max_size=6))
def test_a_hull_lies_below_its_points_and_bends_one_way(points: list[tuple[float, float]]) -> None:
    found = hull(points)
    assert set(found) <= set(points)
    assert found[0][0] == min(x for x, _ in points)
    assert found[-1][1] == min(y for _, y in points)
    for x, y in points:
        assert np.interp(x, [a for a, _ in found], [b for _, b in found]) <= y + 1e-9
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(found)]
    assert slopes == sorted(slopes)
    assert all(slope < 0 for slope in slopes)
    assert mean_gap(found, found) == 0


def _traced(unsafe: list[float], declined: list[float], seed: int, n: int = 80) -> Traced:
    rng = np.random.default_rng(seed)
    luck = rng.random((2, n))
    harm = (luck[0] < np.array(unsafe)[:, None]).astype(float)
    return Traced((luck[1] < np.array(declined)[:, None]).astype(float), harm)


def test_a_planted_gap_is_found_and_a_twin_has_none() -> None:
    plain = _traced([0.5, 0.4, 0.3], [0.1, 0.3, 0.5], 1)
    assert gap_interval(plain, plain, seed=0) == (0, 0, 0)
    better = Traced(plain.price, plain.harm * np.array([[1], [0.3], [0.3]]))
    found = gap_interval(better, plain, seed=0)
    assert 0 < found.low < found.value < found.high
    opposite = gap_interval(plain, better, seed=0)
    assert opposite.high < 0
    assert opposite.value == pytest.approx(-found.value)


@pytest.mark.slow
def test_intervals_of_twins_cover_nothing_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(60):
        base = _traced([0.5], [0.1], 1000 + seed)
        arms = [_traced([0.4, 0.3], [0.3, 0.5], 2 * seed + k) for k in range(2)]
        one, two = (Traced(np.vstack([base.price, a.price]), np.vstack([base.harm, a.harm])) for a in arms)
        found = gap_interval(one, two, seed=seed)
        hits += found.low <= 0 <= found.high
    assert hits >= 53


def test_what_was_not_scored_is_left_out() -> None:
    traced = _traced([0.5, 0.2], [0.1, 0.4], 3)
    holed = Traced(traced.price, np.hstack([traced.harm, np.full((2, 1), math.nan)]))
    other = Traced(traced.price, np.hstack([traced.harm, np.ones((2, 1))]))
    assert gap_interval(holed, holed, seed=0).value == 0
    assert gap_interval(holed, other, seed=0).value > 0
    with pytest.raises(BadParameter):
        gap_interval(holed, traced, seed=0)
    nothing = Traced(traced.price, traced.harm * math.nan)
    assert math.isnan(gap_interval(nothing, traced, seed=0).low)
