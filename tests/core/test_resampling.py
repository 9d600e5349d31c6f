"""Resampling: clusters as units, pairs, sign flips; what is returned where there is no spread."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from vlmend.core.metrics.resampling import cluster_bootstrap, mean_interval, paired_bootstrap, resampled, sign_flip
from vlmend.core.metrics.stats import mcnemar, paired_difference, share_interval, wilson
from vlmend.errors import BadParameter


def test_resampled_sums_are_those_of_drawn_rows() -> None:
    """Three rows drawn thrice: sums 0 to 6, mean 3, variance n x the rows' variance = 3 x 2/3."""
    sums = resampled(np.array([[0.0], [1.0], [2.0]]), lambda s: s[:, 0], seed=0, draws=20000)
    assert set(sums) == set(range(7))
    assert (sums.mean(), sums.var()) == (pytest.approx(3, abs=0.05), pytest.approx(2, abs=0.1))


def test_replies_that_repeat_their_request_are_worth_one_sample_a_request() -> None:
    """20 requests, 5 equal replies each, 8 hits: the error is sqrt(0.4 x 0.6 / 19), not that of 100 replies."""
    values = [float(r < 8) for r in range(20) for _ in range(5)]
    got = cluster_bootstrap(values, [r for r in range(20) for _ in range(5)], seed=0, draws=20000)
    wanted = share_interval(0.4, math.sqrt(0.24 / 19), least=1, most=100, df=19, level=0.95)
    assert got == pytest.approx(tuple(wanted), abs=0.005)
    plain = wilson(40, 100)
    assert got.high - got.low > 2 * (plain.high - plain.low)


def test_same_seed_same_interval() -> None:
    values, clusters = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b", "c", "c"]
    assert cluster_bootstrap(values, clusters, seed=3) == cluster_bootstrap(values, clusters, seed=3)


def test_large_clusters_weigh_by_their_size() -> None:
    assert cluster_bootstrap([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], seed=0).value == 0.75


def test_one_cluster_has_no_limits() -> None:
    got = cluster_bootstrap([1.0, 0.0, 1.0, 1.0], ["a"] * 4, seed=0)
    assert got.value == 0.75
    assert math.isnan(got.low)
    assert math.isnan(got.high)


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_all_alike_counts_each_cluster_once(hit: float) -> None:
    """12 clusters of 3: as wide as 12 samples with t of 11, never of no width."""
    got = cluster_bootstrap([hit] * 36, [r // 3 for r in range(36)], seed=0)
    assert got == share_interval(hit, 0.0, least=12, most=36, df=11, level=0.95)
    assert got.high - got.low > wilson(12, 12).high - wilson(12, 12).low


def test_clusters_with_equal_means_are_no_certainty() -> None:
    got = cluster_bootstrap([0.0, 1.0] * 10, [r // 2 for r in range(20)], seed=0)
    assert got == share_interval(0.5, 0.0, least=10, most=20, df=9, level=0.95)


def test_scores_without_spread_have_no_limits() -> None:
    assert math.isnan(cluster_bootstrap([0.3] * 6, [0, 0, 1, 1, 2, 2], seed=0).low)
    assert math.isnan(paired_bootstrap([0.1, 0.2], [0.1, 0.2], seed=0).high)


def test_yes_or_no_pairs_without_spread_get_the_score_interval() -> None:
    same = [True, False] * 10
    numbers = [float(x) for x in same]
    assert paired_bootstrap(numbers, numbers, seed=0) == paired_difference(same, same)


def test_nothing_is_not_a_number() -> None:
    assert all(math.isnan(x) for x in cluster_bootstrap([], [], seed=0))
    assert all(math.isnan(x) for x in paired_bootstrap([], [], seed=0))


def test_a_shift_of_both_runs_changes_nothing() -> None:
    """Only differences count: request-to-request spread of 100 does not widen the interval."""
    rng = np.random.default_rng(0)
    base, change = rng.normal(0, 100, 60), rng.normal(1, 0.5, 60)
    got = paired_bootstrap(list(base), list(base + change), seed=1)
    assert got.value == pytest.approx(change.mean())
    assert got.high - got.low == pytest.approx(2 * 2.0 * change.std(ddof=1) / math.sqrt(60), rel=0.15)


def test_sign_flip_counts_all_signs() -> None:
    """Differences 1, 2, 4: of the 8 signs only +7 and -7 reach |7|: 2/8."""
    assert sign_flip([0.0, 0.0, 0.0, 5.0], [1.0, 2.0, 4.0, 5.0], seed=0) == 0.25


def test_sign_flip_by_the_slow_way() -> None:
    change = [0.5, -1.5, 2.0, 3.0, 0.25, 1.0]
    sums = [sum(s * c for s, c in zip(signs, change, strict=True)) for signs in product((1, -1), repeat=6)]
    assert sign_flip([0.0] * 6, change, seed=0) == sum(abs(s) >= abs(sum(change)) - 1e-12 for s in sums) / 64


def test_sign_flip_of_yes_and_no_is_mcnemar() -> None:
    before, after = [True] * 9 + [False] * 3 + [True] * 4, [False] * 9 + [True] * 3 + [True] * 4
    flipped = sign_flip([float(x) for x in before], [float(x) for x in after], seed=0)
    assert flipped == pytest.approx(mcnemar(before, after).p_value)


def test_sign_flip_without_changes_is_one() -> None:
    assert sign_flip([1.0, 2.0], [1.0, 2.0], seed=0) == 1.0


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(BadParameter, match="draws=0 is below 1; 1 values are not finite"):
        cluster_bootstrap([math.nan, 1.0], ["a", "b"], seed=0, draws=0)


def test_a_share_of_independent_samples_has_the_interval_of_an_attacks_share() -> None:
    """3 of 4, each by itself: Wilson's, as attacks tell it. In two clusters, and of other numbers: over clusters."""
    hits = [1.0, 1.0, 0.0, 1.0]
    assert mean_interval(hits, "abcd", seed=0) == wilson(3, 4)
    assert mean_interval(hits, "aabb", seed=0) == cluster_bootstrap(hits, "aabb", seed=0)
    assert mean_interval([0.5, 0.2], "ab", seed=0) == cluster_bootstrap([0.5, 0.2], "ab", seed=0)
