"""Intervals and tests against published and hand-computed numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.stats import agreement, mcnemar, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(0, 50, 0.0, 0.071), (5, 100, 0.022, 0.112), (412, 500, 0.788, 0.855)]
)
def test_wilson_against_known_intervals(k: int, n: int, low: float, high: float) -> None:
    value, got_low, got_high = wilson(k, n)
    assert (value, round(got_low, 3), round(got_high, 3)) == (k / n, low, high)


@given(n=st.integers(1, 300), data=st.data())
def test_wilson_is_the_score_interval_of_the_formula(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    p, z = k / n, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    interval = wilson(k, n)
    assert interval.low == pytest.approx(max(0, centre - half), abs=1e-9)
    assert interval.high == pytest.approx(min(1, centre + half), abs=1e-9)


def test_wilson_of_nothing_is_not_a_number() -> None:
    assert all(math.isnan(x) for x in wilson(0, 0))


def test_mcnemar_by_hand() -> None:
    """Five fixed, none broken: two-sided exact p = 2 / 2^5."""
    test = mcnemar([True] * 5 + [False, True], [False] * 5 + [False, True])
    assert (test.n, test.fixed, test.broken, test.p_value) == (7, 5, 0, 0.0625)


def test_mcnemar_without_changes_is_one() -> None:
    assert mcnemar([True, False], [True, False]).p_value == 1.0


def test_kappa_by_hand() -> None:
    """Agree on 3 of 4; chance (2*3 + 2*1) / 16 = 1/2; kappa = (0.75 - 0.5) / 0.5."""
    assert agreement(["a", "a", "b", "b"], ["a", "a", "a", "b"]) == (0.75, 0.5)
