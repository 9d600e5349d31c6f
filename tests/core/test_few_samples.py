"""Everything that tests or resamples, on 0, 1 and 2 samples and ties: a number with honest limits, or our own error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.metrics.correction import ppi, rogan_gladen
from vlmend.core.metrics.detection import detection
from vlmend.core.metrics.raters import kappa_interval, krippendorff_alpha
from vlmend.core.metrics.resampling import cluster_bootstrap, paired_bootstrap, sign_flip
from vlmend.core.metrics.stats import Interval, agreement, holm, mcnemar, paired_difference, wilson
from vlmend.errors import BadParameter

VALUES = st.sampled_from([0.0, 1.0, 0.5, -2.0])
PAIRS = st.integers(0, 2).flatmap(lambda n: st.lists(st.tuples(VALUES, VALUES), min_size=n, max_size=n))
TIES = st.tuples(VALUES, VALUES, st.integers(0, 14)).map(lambda tie: [(tie[0], tie[1])] * tie[2])
FEW = st.one_of(PAIRS, TIES)

Interpreted = Callable[[Sequence[float], Sequence[float]], Interval]

INTERVALS: dict[str, Interpreted] = {
    "wilson": lambda a, b: wilson(sum(x > 0 for x in a), len(a)),
    "paired_difference": lambda a, b: paired_difference([x > 0 for x in a], [x > 0 for x in b]),
    "cluster_bootstrap": lambda a, b: cluster_bootstrap(a, b, seed=0, draws=50),
    "paired_bootstrap": lambda a, b: paired_bootstrap(a, b, seed=0, draws=50),
    "kappa": lambda a, b: kappa_interval([str(x) for x in a], [str(x) for x in b], seed=0, draws=50),
    "alpha": lambda a, b: krippendorff_alpha([[str(x) for x in a], [str(x) for x in b]], seed=0, draws=50),
    "ppi": lambda a, b: ppi([*a, *a], a, b),
    "rogan_gladen": lambda a, b: rogan_gladen([x > 0 for x in a], [x > 0 for x in a], [x > 0 for x in b]),
}


@pytest.mark.parametrize("name", INTERVALS)
@given(FEW)
@settings(max_examples=30, deadline=None)
def test_an_interval_holds_its_value_or_says_that_it_has_none(name: str, pairs: list[tuple[float, float]]) -> None:
    found = INTERVALS[name]([a for a, _ in pairs], [b for _, b in pairs])
    if not pairs:
        assert math.isnan(found.value)
    if not math.isnan(found.low):
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9


@given(FEW)
@settings(max_examples=12, deadline=None)
def test_a_test_gives_a_p_value(pairs: list[tuple[float, float]]) -> None:
    """1 where nothing differs, and never below 2 / 2^n: so many outcomes n coins have."""
    old, new = [a for a, _ in pairs], [b for _, b in pairs]
    counted = mcnemar([x > 0 for x in old], [x > 0 for x in new]).p_value
    flipped = sign_flip(old, new, seed=0)
    for p in (counted, flipped):
        assert min(1.0, 2 / 2 ** len(pairs)) <= p + 1e-12 <= 1 + 1e-9
    if old == new:
        assert counted == flipped == 1
    assert holm([counted, flipped])[0] <= 1


@given(FEW, FEW)
@settings(max_examples=30, deadline=None)
def test_scores_of_two_kinds_are_told_apart_or_refused(
    known: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    first, second = [a for a, _ in known], [a for a, _ in other]
    if min(len(first), len(second)) < 2:
        with pytest.raises(BadParameter, match="two or more"):
            detection(first, second, seed=0, draws=20)
        return
    for interval in detection(first, second, seed=0, draws=20):
        assert 0 <= interval.value <= 1


@given(FEW)
@settings(max_examples=30, deadline=None)
def test_raters_without_a_common_sample_agree_on_nothing_that_is_known(pairs: list[tuple[float, float]]) -> None:
    observed, kappa = agreement([str(a) for a, _ in pairs], [str(b) for _, b in pairs])
    assert math.isnan(observed) if not pairs else 0 <= observed <= 1
    assert math.isnan(kappa) or kappa <= 1
