"""Gaps of shares between groups: by hand, their laws, and what chance alone gives."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.groups import gap_by_chance, share_gap
from vlmend.core.metrics.stats import wilson
from vlmend.errors import BadParameter

HITS = [True] * 6 + [False] * 4 + [True] * 1 + [False] * 9
GROUPS = ["a"] * 10 + ["b"] * 10
ALONE = [str(k) for k in range(20)]


def test_by_hand() -> None:
    gap = share_gap(HITS, GROUPS, ALONE, seed=0)
    assert gap.value == pytest.approx(0.5)
    assert 0 < gap.low < 0.5 < gap.high < 1


def test_pictures_of_one_person_tell_no_more_than_one() -> None:
    alone = share_gap(HITS, GROUPS, ALONE, seed=0)
    doubled = share_gap(HITS * 3, GROUPS * 3, ALONE * 3, seed=0)
    assert doubled.value == alone.value
    assert doubled.high - doubled.low == pytest.approx(alone.high - alone.low, abs=0.03)
    independent = share_gap(HITS * 3, GROUPS * 3, [str(k) for k in range(60)], seed=0)
    assert independent.high - independent.low < 0.8 * (alone.high - alone.low)


def test_no_hit_at_all_has_an_upper_limit() -> None:
    assert share_gap([False] * 20, GROUPS, ALONE, seed=0) == (0.0, 0.0, wilson(0, 10).high)


def test_every_one_of_a_group_and_none_of_the_other_has_a_lower_limit() -> None:
    gap = share_gap([True] * 10 + [False] * 10, GROUPS, ALONE, seed=0)
    assert gap == (1.0, pytest.approx(wilson(10, 10).low - wilson(0, 10).high), 1.0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pictures(n: int) -> None:
    gap = share_gap([True, False][:n], ["a", "b"][:n], ["x", "y"][:n], seed=0)
    assert math.isnan(gap.value) if n < 2 else gap.value == 1


def test_lengths_must_agree() -> None:
    with pytest.raises(BadParameter):
        share_gap([True], ["a", "b"], ["x", "y"], seed=0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=2, max_size=30))
def test_the_gap_does_not_hang_on_names(rows: list[tuple[bool, str]]) -> None:
    hits, groups = [hit for hit, _ in rows], [group for _, group in rows]
    own = [str(k) for k in range(len(rows))]
    gap = share_gap(hits, groups, own, seed=0)
    renamed = share_gap(hits, [{"a": "z", "b": "y", "c": "x"}[g] for g in groups], own, seed=0)
    if len(set(groups)) > 1:
        assert gap.value == renamed.value
        assert 0 <= gap.value <= 1


def test_chance_by_hand() -> None:
    """One hit among two pictures: however groups are dealt, the gap is 1. Where strata hold one group: as it is."""
    assert gap_by_chance([True, False], ["a", "b"], ["x", "y"], ["s", "s"], seed=0, draws=20) == 1
    assert gap_by_chance(HITS, GROUPS, ALONE, GROUPS, seed=0, draws=20) == pytest.approx(0.5)


def test_chance_deals_people_and_not_pictures() -> None:
    """Four people with ten pictures each, all of one person hit: however people are dealt, the gap is a half."""
    hits = [True] * 10 + [False] * 30
    people = [str(k // 10) for k in range(40)]
    groups = ["a"] * 20 + ["b"] * 20
    assert gap_by_chance(hits, groups, people, ["s"] * 40, seed=0, draws=50) == pytest.approx(0.5)
