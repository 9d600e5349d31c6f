"""Intervals and tests against published and hand-computed numbers."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from vlmend.core.metrics.stats import agreement, difference, holm, mcnemar, paired_difference, share_interval, wilson
from vlmend.errors import BadParameter


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


def test_tango_against_a_published_interval() -> None:
    """Cavo et al. 2012: 59, 6, 16, 80; -0.0621 (-0.1240 to -0.0054) in the tests of R's contingencytables."""
    before = [True] * 59 + [False] * 6 + [True] * 16 + [False] * 80
    after = [True] * 59 + [True] * 6 + [False] * 16 + [False] * 80
    assert [round(x, 4) for x in paired_difference(before, after)] == [-0.0621, -0.1240, -0.0054]


def test_tango_without_changes_still_has_a_width() -> None:
    """Nothing changed in 20: +-z^2 / (n + z^2) = 3.8415 / 23.8415."""
    value, low, high = paired_difference([True] * 5 + [False] * 15, [True] * 5 + [False] * 15)
    assert value == 0
    assert (low, high) == (pytest.approx(-0.16113, abs=1e-5), pytest.approx(0.16113, abs=1e-5))


@pytest.mark.parametrize(("before", "value", "low", "high"), [(True, -1, -1, -0.7), (False, 1, 0.7, 1)])
def test_tango_stays_within_its_range(before: bool, value: float, low: float, high: float) -> None:
    got = paired_difference([before] * 20, [not before] * 20)
    assert got.value == value
    assert -1 <= got.low <= low + 0.1
    assert high - 0.1 <= got.high <= 1


@settings(deadline=None)
@given(fixed=st.integers(0, 12), broken=st.integers(0, 12), same=st.integers(1, 12))
def test_tango_turns_round_with_the_order(fixed: int, broken: int, same: int) -> None:
    before = [True] * fixed + [False] * broken + [True] * same
    after = [False] * fixed + [True] * broken + [True] * same
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.low <= there.value <= there.high
    assert (there.low, there.high) == (pytest.approx(-back.high, abs=1e-9), pytest.approx(-back.low, abs=1e-9))


def test_paired_difference_of_nothing_is_not_a_number() -> None:
    assert all(math.isnan(x) for x in paired_difference([], []))


@settings(deadline=None)
@given(n=st.integers(1, 300), data=st.data())
def test_share_interval_of_a_plain_share_is_wilsons(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    error = math.sqrt(k * (n - k) / n) / n
    got = share_interval(k / n, error, least=n, most=n, df=10**9, level=0.95)
    assert got == pytest.approx(tuple(wilson(k, n)), abs=1e-6)


def test_share_interval_with_twice_the_error_is_that_of_a_quarter_of_the_samples() -> None:
    error = math.sqrt(0.2 * 0.8 / 100)
    got = share_interval(0.2, 2 * error, least=1, most=100, df=10**9, level=0.95)
    assert got == pytest.approx(tuple(wilson(5, 25)), abs=1e-6)


def test_holm_by_hand() -> None:
    """Sorted 0.01 x 3, 0.03 x 2, 0.04 x 1, none below the one before it."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    with patch("gc.collect"):  # which it calls, and which takes a second in a process as full as this
        wanted = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(wanted))


def test_what_is_no_p_value_is_refused() -> None:
    with pytest.raises(BadParameter, match="nan is no p-value"):
        holm([0.1, math.nan])


def test_columns_of_different_length_and_odd_levels_are_refused() -> None:
    with pytest.raises(BadParameter, match="before has 1, after has 2"):
        paired_difference([True], [True, False])
    with pytest.raises(BadParameter, match=r"level=95\.0"):
        paired_difference([True], [True], level=95.0)


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_difference_of_wilsons_intervals_is_newcombes(n: int, m: int, data: st.DataObject) -> None:
    """As statsmodels computes it."""
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    found = difference(wilson(k, n), wilson(j, m))
    low, high = confint_proportions_2indep(k, n, j, m, method="newcomb", compare="diff")
    assert found.value == pytest.approx(k / n - j / m)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
