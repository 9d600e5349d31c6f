"""Labels asked in batches: nothing twice, a random quarter, a planted group that the choice finds, rates by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.active_labels import COMPLETIONS, pools

from vlmend.audit.labels.choosing import Choose
from vlmend.core.metrics.stats import wilson
from vlmend.core.splits import word_fraction
from vlmend.errors import BadParameter, UsageError
from vlmend.studies.active_labels import CHOICES, Point, Pool, learning_curve, next_batch


def planted(count: int, seed: int, odd: float = 0.15) -> Pool:
    """Two easy groups, told by the first feature, and a rare odd one that says the reverse."""
    rng = np.random.default_rng(seed)
    groups = np.where(rng.random(count) < odd, "odd", np.where(rng.random(count) < 0.5, "one", "two"))
    side = rng.random(count) < 0.4
    sign, is_odd = np.where(side, 1.0, -1.0), groups == "odd"
    inputs = np.stack([np.where(is_odd, 0, sign), np.where(is_odd, -sign, 0), rng.normal(size=count)], axis=1)
    inputs[:, :2] += rng.normal(scale=0.6, size=(count, 2))
    return Pool(inputs, side, tuple(groups.tolist()), np.where(is_odd, ~side, side))


def asked(pool: Pool, choose: Choose, seed: int, count: int = 20) -> list[int]:
    rng = np.random.default_rng(seed)
    sure, rates = np.linspace(0, 1, len(pool.labels)), {"one": 0.1, "two": 0.2, "odd": 0.9}
    order = rng.permutation(len(pool.labels))
    at_random, chosen = next_batch(pool, sure, rates, range(10), choose, count, order, 15)
    return [*at_random, *chosen]


@pytest.mark.parametrize("choose", CHOICES)
def test_the_whole_pool_is_asked_once_and_no_place_twice(choose: Choose) -> None:
    pool = planted(70, 0)
    points = learning_curve(pool, pool, choose, 0, batch=20, most=1000)
    assert [point.labels for point in points] == [20, 40, 60, 70]
    assert points[-1].naive == wilson(int(pool.labels.sum()), 70)
    assert len(set(asked(pool, choose, 1, 60))) == 60
    assert not {*asked(pool, choose, 1, 60)} & {*range(10)}


def test_the_surest_replies_those_that_judges_agree_on_and_good_groups_come_last() -> None:
    pool = planted(400, 1)
    rng = np.random.default_rng(0)
    sure = np.linspace(0, 1, 400)
    rates = {"one": 0.1, "two": 0.2, "odd": 0.9}
    worths: dict[Choose, Any] = {
        "uncertainty": -np.abs(sure - 0.5), "disagreement": np.abs(sure - pool.first),
        "worst_group": np.array([rates[name] for name in pool.groups]),
    }  # fmt: skip
    for choose, worth in worths.items():
        at_random, chosen = next_batch(pool, sure, rates, [], choose, 40, rng.permutation(400), 10)
        assert (len(at_random), len(chosen)) == (10, 30)
        rest = [k for k in range(400) if k not in {*at_random, *chosen}]
        assert min(worth[chosen]) >= max(worth[rest])


def test_scores_that_are_all_alike_choose_at_random() -> None:
    """400 draws of 5 of 20: each place is asked 100 times, standard deviation 8.7; 5 of these either way."""
    pool = planted(20, 2)
    times: Counter[int] = Counter()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        for part in next_batch(pool, np.full(20, 0.5), {}, [], "uncertainty", 5, rng.permutation(20), 2):
            times.update(part)
    assert len(times) == 20
    assert all(57 <= count <= 143 for count in times.values())


@settings(max_examples=10)
@given(st.sampled_from(CHOICES), st.integers(0, 1000))
def test_the_same_seed_asks_the_same(choose: Choose, seed: int) -> None:
    pool = planted(60, 3)
    assert asked(pool, choose, seed) == asked(pool, choose, seed)


def ends(choose: Choose, pool: Pool, seeds: int = 8) -> list[Point]:
    held_out = planted(600, 99)
    return [learning_curve(pool, held_out, choose, seed, batch=20, most=100)[-1] for seed in range(seeds)]


def test_a_rare_group_that_is_wrong_is_asked_about_and_gets_better_and_without_one_nothing_is_gained() -> None:
    pool = planted(800, 4)
    by_group, at_random = ends("worst_group", pool), ends("random", pool)
    assert np.mean([p.worst for p in by_group]) > np.mean([p.worst for p in at_random]) + 0.02
    plain = replace(pool, groups=("one",) * 800)  # the clean twin: one group, nothing to choose by
    same = ends("worst_group", plain)
    assert abs(np.mean([p.worst for p in same]) - np.mean([p.worst for p in at_random])) < 0.08


def test_labels_that_were_chosen_bias_a_rate_and_the_random_quarter_does_not() -> None:
    """Disagreement asks for those of the odd group, of whom the first judge says the reverse.

    40 random labels at a rate near 1/2: standard error 0.08, of the mean of 24 runs 0.016; 4 of these either way.
    """
    pool = planted(800, 5)
    pool = replace(pool, labels=pool.labels | (np.array(pool.groups) == "odd"), first=pool.first & ~pool.labels)
    points = ends("disagreement", pool, 24)
    naive = np.mean([p.naive.value - p.rate for p in points])
    corrected = np.mean([p.corrected.value - p.rate for p in points])
    assert abs(naive) > 0.1
    assert abs(corrected) < 0.065
    assert sum(p.naive.low <= p.rate <= p.naive.high for p in points) <= 6
    assert sum(p.corrected.low <= p.rate <= p.corrected.high for p in points) >= 20


def test_the_random_quarter_is_one_of_the_whole_pool_also_where_hardly_anything_is_left() -> None:
    """Drawn from what the others left, its rate would be that of the left-over: the odd group is asked first."""
    pool = planted(400, 6)
    pool = replace(pool, labels=np.array(pool.groups) == "odd", first=np.zeros(400, dtype=bool))
    points = [learning_curve(pool, pool, "disagreement", seed, batch=20, most=300)[-1] for seed in range(8)]
    assert abs(np.mean([p.corrected.value - p.rate for p in points])) < 0.05
    assert sum(p.corrected.low <= p.rate <= p.corrected.high for p in points) >= 6


def test_the_least_sure_are_those_of_scikit_activeml() -> None:
    sampling = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is an optional peer").uncertainty_scores
    chances = np.random.default_rng(0).random(30)
    theirs = sampling(np.stack([1 - chances, chances], axis=1), method="least_confident")
    assert np.argsort(theirs).tolist() == np.argsort(-np.abs(chances - 0.5)).tolist()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    pool = planted(10, 0)
    with pytest.raises(BadParameter, match="ask nothing"):
        learning_curve(pool, pool, "random", 0, batch=1)
    with pytest.raises(BadParameter, match="one length"):
        replace(pool, groups=("one",))
    with pytest.raises(UsageError, match="is not here"):
        pools(tmp_path / "none.jsonl")


@pytest.mark.skipif(not COMPLETIONS.exists(), reason="shared/data/xstest_completions is not here")
def test_the_completions_are_split_by_prompt() -> None:
    rows = [json.loads(line) for line in COMPLETIONS.read_text("utf-8").splitlines()]
    count = sum(word_fraction(row["id"]) < 0.5 for row in rows)
    assert 0.4 < count / len(rows) < 0.6
