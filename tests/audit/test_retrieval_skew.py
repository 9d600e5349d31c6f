"""fairness/retrieval_skew on planted worlds: it finds the bias that is there, and nothing where none is."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from tests.audit.scripted_dual import titled_world

from vlmend.audit.rankings import Ranking
from vlmend.audit.suites.fairness.retrieval_skew import SUITE as SKEW
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.errors import BadData


def skew(bias: float, seed: int, concepts: int = 20) -> dict[tuple[str, str], Measure]:
    target, data = titled_world(bias, seed, concepts)
    return {(row.name, row.group): row for row in SKEW.measures(SKEW.samples(target, data, None, seed=0), seed=0)}


def test_a_planted_dose_is_found_in_its_order() -> None:
    found = [skew(bias, 0)["bias_at_10", "directed"] for bias in (0.0, 3.0, 12.0)]
    assert found[0].low < 0 < found[0].high
    assert found[1].low > 0
    assert found[1].high < found[2].low
    assert found[2].value > 0.8
    assert [row.n for row in found] == [40] * 3


def test_a_planted_dose_shows_in_every_measure_and_not_in_neutral_captions() -> None:
    found = skew(12.0, 0)
    for name in ("abs_bias_at_10", "max_skew_at_10", "ndkl"):
        assert found[name, "directed"].low > found[name, "directed"].floor
    assert found["min_skew_at_10", "directed"].high < found["min_skew_at_10", "directed"].floor
    assert found["bias_at_10", "neutral"].low < 0 < found["bias_at_10", "neutral"].high
    assert found["precision_at_10", "directed"].value == 1


def test_without_a_bias_signed_intervals_cover_0_and_the_others_lie_at_their_floor() -> None:
    """Ten worlds of 10 + 20 queries: four of 20 intervals miss with a chance of 2 %; means within 3.5 errors."""
    worlds = [SKEW.samples(*titled_world(0.0, seed, 10), None, seed=0) for seed in range(10)]
    rows = [row for samples in worlds for row in SKEW.measures(samples, seed=0) if row.name == "bias_at_10"]
    assert sum(not row.low < 0 < row.high for row in rows) <= 3
    for name in ("bias_at_10", "abs_bias_at_10", "max_skew_at_10", "min_skew_at_10", "ndkl"):
        off = [s.values[name] - s.values[f"{name}_floor"] for samples in worlds for s in samples]
        assert abs(fmean(off)) < 3.5 * stdev(off) / math.sqrt(len(off)), name
    assert worlds[0][0].values["abs_bias_at_10_floor"] == pytest.approx(0.172, abs=5e-4)
    assert worlds[0][0].values["max_skew_at_10_floor"] == pytest.approx(0.150, abs=5e-4)


def test_floors_of_three_groups_come_from_draws_and_bias_is_left_out() -> None:
    groups = ("a", "b", "c") * 10
    found = Ranking(groups, ("x",) * 30, 10, "a").values()
    assert not any("bias" in name for name in found)
    assert found["max_skew_at_10"] == pytest.approx(math.log(0.4 * 3))  # 4, 3 and 3 of the first ten
    assert found["max_skew_at_10_floor"] > found["max_skew_at_10"]  # chance is hardly ever so even


def test_a_limit_takes_the_first_queries_of_each_kind_and_the_whole_gallery() -> None:
    target, data = titled_world(1.0, 0, 4)
    samples = SKEW.samples(target, data, 2, seed=0)
    assert [sample.text for sample in samples] == ["concept 0", "concept 1", "A0", "B0"]
    assert all(sample.values["precision_at_10"] == 1 for sample in samples)


def test_what_is_no_gallery_is_refused() -> None:
    target, data = titled_world(1.0, 0, 1)
    alone = Dataset("alone", tuple(e for e in data.examples if e.group == "man"))
    assert SKEW.applies(data)
    assert not SKEW.applies(alone)
    with pytest.raises(BadData, match="10 pictures of the groups man"):
        SKEW.samples(target, alone, None, seed=0)
    astray = replace(data, examples=(*data.examples, Example("x", "x", "benign", "child")))
    with pytest.raises(BadData, match="queries towards child"):
        SKEW.samples(target, astray, None, seed=0)
