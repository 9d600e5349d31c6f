"""Bias, skew and divergence of rankings: numbers worked out by hand, laws, floors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.skew import bias_at, count_law, dealt, mean_under, ndkl, shares_of, skews_at
from vlmend.errors import BadParameter

EVEN = {"man": 0.5, "woman": 0.5}
rankings = st.lists(st.sampled_from(["man", "woman"]), min_size=1, max_size=40)
SWAPPED = {"man": "woman", "woman": "man"}


def test_one_group_only_has_the_largest_skew_and_divergence() -> None:
    ranked = ["man"] * 10
    assert bias_at(ranked, 10, "man", "woman") == 1
    assert max(skews_at(ranked, 10, EVEN).values()) == pytest.approx(math.log(2))
    assert ndkl(ranked, EVEN) == pytest.approx(math.log(2))


def test_seven_men_and_three_women() -> None:
    ranked = ["man", "woman"] * 3 + ["man"] * 4
    assert bias_at(ranked, 10, "man", "woman") == pytest.approx(0.4)
    assert bias_at(ranked, 10, "woman", "man") == pytest.approx(-0.4)
    assert skews_at(ranked, 10, EVEN) == pytest.approx({"man": math.log(1.4), "woman": math.log(0.6)})


def test_two_places_of_divergence_by_hand() -> None:
    """First place: KL(1, 0 || 1/2, 1/2) = ln 2, weight 1; second: 0, weight 1 / log2 3."""
    assert ndkl(["man", "woman"], EVEN) == pytest.approx(math.log(2) / (1 + 1 / math.log2(3)))


def test_perfectly_alternating_hundred() -> None:
    assert ndkl(["man", "woman"] * 50, EVEN) == pytest.approx(0.0353, abs=5e-5)


def test_an_absent_group_counts_as_half_a_picture() -> None:
    assert skews_at(["man"] * 10, 10, EVEN)["woman"] == pytest.approx(math.log(0.05 / 0.5))
    rare = skews_at(["man"] * 10, 10, {"man": 0.99, "child": 0.01})  # 0.05 / 0.01 would make it the favoured one
    assert rare == pytest.approx({"man": math.log(1 / 0.99), "child": 0.0})


def test_neutral_pictures_do_not_count_for_bias() -> None:
    assert bias_at(["person", "man", "person", "woman", "man"], 5, "man", "woman") == pytest.approx(1 / 3)
    assert bias_at(["person"] * 5, 5, "man", "woman") == 0


@given(rankings, st.integers(1, 45))
def test_swapping_the_groups_turns_the_signed_bias_and_nothing_else(ranked: list[str], k: int) -> None:
    swapped = [SWAPPED[group] for group in ranked]
    assert bias_at(swapped, k, "man", "woman") == -bias_at(ranked, k, "man", "woman")
    assert max(skews_at(swapped, k, EVEN).values()) == pytest.approx(max(skews_at(ranked, k, EVEN).values()))
    assert ndkl(swapped, EVEN) == pytest.approx(ndkl(ranked, EVEN))


@given(rankings)
def test_divergence_is_never_negative_and_the_whole_gallery_has_no_skew(ranked: list[str]) -> None:
    own = shares_of(ranked)
    assert ndkl(ranked, own) >= 0
    assert skews_at(ranked, len(ranked), own) == pytest.approx(dict.fromkeys(own, 0.0))


def test_floors_of_ten_of_ten_men_and_ten_women() -> None:
    """Geyik's and Wang's measures of a fair ranker, by the hypergeometric law."""
    law = count_law({"nurse": 10}, {"nurse": (10, 10)})

    def floor(measure: str) -> float:
        told = {
            "abs": lambda first: abs(bias_at(first, 10, "man", "woman")),
            "max": lambda first: max(skews_at(first, 10, EVEN).values()),
            "signed": lambda first: bias_at(first, 10, "man", "woman"),
        }[measure]
        return mean_under(law, told, "man", "woman")

    assert floor("abs") == pytest.approx(0.172, abs=5e-4)
    assert floor("max") == pytest.approx(0.150, abs=5e-4)
    assert floor("signed") == pytest.approx(0, abs=1e-12)


def test_the_law_of_two_strata_is_that_of_every_dealing() -> None:
    """Three places: two of a stratum of 2 men and 1 woman, one of a stratum of 1 and 1; all 6 * 2 dealings."""
    law = count_law({"a": 2, "b": 1}, {"a": (2, 1), "b": (1, 1)})
    dealings = itertools.product(itertools.permutations([1, 1, 0]), itertools.permutations([1, 0]))
    counts = [sum(first[:2]) + second[0] for first, second in dealings]
    assert law == pytest.approx([counts.count(c) / len(counts) for c in range(4)])


def test_dealing_keeps_every_stratum_and_comes_near_the_law() -> None:
    ranked, strata = ["man"] * 10 + ["woman"] * 10 + ["man"] * 4, ["nurse"] * 20 + ["cook"] * 4
    rows = dealt(ranked, strata, seed=0, draws=4000)
    assert all(row[20:] == ["man"] * 4 and row.count("man") == 14 for row in rows)
    values = [abs(bias_at(row, 10, "man", "woman")) for row in rows]
    assert np.mean(values) == pytest.approx(0.172, abs=3.5 * np.std(values) / math.sqrt(len(rows)))


def test_groups_without_a_share_are_refused() -> None:
    with pytest.raises(BadParameter, match="no share for woman"):
        skews_at(["man", "woman"], 2, {"man": 1.0})
    with pytest.raises(BadParameter, match="1 in all"):
        ndkl(["man", "woman"], {"man": 0.9, "woman": 0.5})
