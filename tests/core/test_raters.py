"""Kappa and alpha against numbers worked out by hand and by Krippendorff."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.raters import group_parting, kappa_interval, krippendorff_alpha
from vlmend.core.metrics.stats import agreement, share_interval
from vlmend.errors import BadParameter

SECTION_C = ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 .")
"""Krippendorff 2011, section C: four observers, twelve units, a point where a label is missing."""


def test_alpha_of_krippendorffs_example() -> None:
    rows = [[None if label == "." else label for label in row.split()] for row in SECTION_C]
    value, low, high = krippendorff_alpha(rows, seed=0)
    assert round(value, 3) == 0.743
    assert -1 < low < value < high <= 1


def test_alpha_by_hand() -> None:
    """Two raters, labels aa ab bb bb: 8 labels, 3 a, 5 b. Observed 2/8; chance 2 x 3 x 5 / (8 x 7) = 30/56."""
    got = krippendorff_alpha([["a", "a", "b", "b"], ["a", "b", "b", "b"]], seed=0)
    assert got.value == pytest.approx(1 - (2 / 8) / (30 / 56))


def test_items_with_one_label_do_not_count() -> None:
    pairs = [["a", "a", "b", "b"], ["a", "b", "b", "b"]]
    more = [[*pairs[0], "c", None], [*pairs[1], None, None]]
    assert krippendorff_alpha(more, seed=0) == krippendorff_alpha(pairs, seed=0)


def test_kappa_is_that_of_agreement() -> None:
    ours, theirs = list("aabbcabcab") * 5, list("aabbcbbcaa") * 5
    value, low, high = kappa_interval(ours, theirs, seed=0)
    assert value == agreement(ours, theirs)[1]
    assert low < value < high


def test_full_agreement_is_no_certainty() -> None:
    """20 of 20, t of 19 = 2.093: agreement may be 20 / (20 + t^2) = 0.8203; chance is 1/2: 1 - 0.1797 / 0.5."""
    labels = ["a", "b"] * 10
    low = share_interval(1.0, 0.0, least=20, most=20, df=19, level=0.95).low
    assert low == pytest.approx(0.8203, abs=1e-4)
    assert kappa_interval(labels, labels, seed=0) == (1.0, pytest.approx(1 - 2 * (1 - low)), 1.0)
    # 40 labels, 20 of each: chance disagreement 2 x 20 x 20 / (40 x 39)
    wanted = 1 - (1 - low) / (800 / 1560)
    assert krippendorff_alpha([labels, labels], seed=0) == (1.0, pytest.approx(wanted), 1.0)


def test_no_limit_is_below_minus_one() -> None:
    """Eleven of twelve alike, chance 11/12: limits with chance as it is would begin at 1 - 1 / (1/12) = -11."""
    got = kappa_interval(["a"] * 11 + ["b"], ["a"] * 12, seed=0)
    assert got.value == pytest.approx(0)
    assert -1 <= got.low < 0 < got.high <= 1


def test_one_label_throughout_tells_nothing() -> None:
    assert all(math.isnan(x) for x in kappa_interval(["a"] * 5, ["a"] * 5, seed=0))
    assert all(math.isnan(x) for x in krippendorff_alpha([["a"] * 5, ["a"] * 5], seed=0))
    assert all(math.isnan(x) for x in kappa_interval([], [], seed=0))


def test_raters_must_have_seen_the_same_items() -> None:
    with pytest.raises(BadParameter, match="rater 1 has 1, rater 2 has 2"):
        krippendorff_alpha([["a"], ["a", "b"]], seed=0)
    with pytest.raises(BadParameter, match="ours has 1, theirs has 2"):
        kappa_interval(["a"], ["a", "b"], seed=0)
    with pytest.raises(BadParameter, match="no rater"):
        krippendorff_alpha([], seed=0)


def test_a_group_that_parts_by_hand() -> None:
    """Raters a a b b on one item, the first two a group: all 4 pairs across differ, none of the 2 within.

    Of the six ways to choose two of four, the group and the others give 1, the four mixed ones 2/4 - 2/2 = -1/2.
    """
    got = group_parting([["a"], ["a"], ["b"], ["b"]], [True, True, False, False], seed=0)
    assert got == (1.0, pytest.approx(2 / 6), pytest.approx(2 / 6))


def test_raters_who_share_nothing_do_not_part() -> None:
    got = group_parting([["a", None], [None, "a"]], [True, False], seed=0)
    assert math.isnan(got.value)
    assert got.p == 1
    with pytest.raises(BadParameter, match="both sides"):
        group_parting([["a"], ["b"]], [True, True], seed=0)


@given(st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=4, max_size=4), min_size=4, max_size=7), st.data())
def test_parting_is_the_same_from_either_side_and_in_any_order(
    rows: list[list[str | None]], data: st.DataObject
) -> None:
    inside = data.draw(
        st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)).filter(lambda x: 0 < sum(x) < len(x))
    )
    got = group_parting(rows, inside, seed=0)
    order = data.draw(st.permutations(range(len(rows))))
    turned = group_parting([rows[k] for k in order], [not inside[k] for k in order], seed=0)
    if math.isnan(got.value):
        assert math.isnan(turned.value)
    else:
        assert turned.value == pytest.approx(got.value)
        assert turned.p == pytest.approx(got.p)
        assert got.p >= got.least - 1e-12


def test_parting_by_chance_is_found_as_often_as_its_p_says() -> None:
    """200 panels of eight raters at random, four of a group: p of 0.05 or less in about 5 %, 2 to 20 of them."""
    rng = random.Random(0)
    found = 0
    for _ in range(200):
        rows = [[rng.choice("abc") for _ in range(15)] for _ in range(8)]
        found += group_parting(rows, [k < 4 for k in range(8)], seed=0).p <= 0.05
    assert 2 <= found <= 20
