"""Judge-error correction against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlmend.core.metrics.correction import ppi, rogan_gladen
from vlmend.core.metrics.stats import share_interval
from vlmend.errors import BadParameter


def labels(hits: int, misses: int, alarms: int, passes: int) -> tuple[list[bool], list[bool]]:
    """Judge and people: both yes, only people, only the judge, both no."""
    judge = [True] * hits + [False] * misses + [True] * alarms + [False] * passes
    return judge, [True] * (hits + misses) + [False] * (alarms + passes)


def numbers(verdicts: list[bool]) -> list[float]:
    return [float(v) for v in verdicts]


def test_rogan_gladen_by_hand() -> None:
    """Sensitivity 0.9, specificity 0.8, judged 38 of 100: (0.38 + 0.8 - 1) / 0.7 = 0.18 / 0.7."""
    got = rogan_gladen([True] * 38 + [False] * 62, *labels(45, 5, 10, 40))
    assert got.value == pytest.approx(0.18 / 0.7)
    assert 0 < got.low < got.value < got.high < 1


def test_lang_and_reiczigels_interval_the_slow_way() -> None:
    """Their steps with z = 1.96: 10 of 100 judged, 18 of 20 found, 28 of 30 passed."""
    z = 1.959963984540054
    p, m = (10 + z**2 / 2) / (100 + z**2), 100 + z**2
    se, sp = 19 / 22, 29 / 32
    true = (p + sp - 1) / (se + sp - 1)
    error = math.sqrt(
        p * (1 - p) / m + se * (1 - se) / 22 * true**2 + sp * (1 - sp) / 32 * (1 - true) ** 2
    ) / (se + sp - 1)  # fmt: skip
    shift = 2 * z**2 * (true * se * (1 - se) / 22 - (1 - true) * sp * (1 - sp) / 32)
    got = rogan_gladen([True] * 10 + [False] * 90, *labels(18, 2, 2, 28))
    assert got.low == pytest.approx(max(0, true + shift - z * error), abs=1e-9)
    assert got.high == pytest.approx(true + shift + z * error, abs=1e-9)


def test_fewer_labels_widen_the_interval() -> None:
    judged = [True] * 38 + [False] * 62
    many, few = rogan_gladen(judged, *labels(90, 10, 20, 80)), rogan_gladen(judged, *labels(9, 1, 2, 8))
    assert many.value == pytest.approx(few.value)
    assert few.high - few.low > 1.3 * (many.high - many.low)


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (2, 8, 5, 5), (9, 1, 0, 0), (0, 0, 1, 9)])
def test_a_judge_that_tells_nothing_gives_no_number(counts: tuple[int, int, int, int]) -> None:
    assert all(math.isnan(x) for x in rogan_gladen([True, False], *labels(*counts)))


def test_ppi_by_hand() -> None:
    """Run of 100 with 40 yes; 20 labelled: 8 hits, 0 misses, 2 alarms, 10 passes.

    Unlabelled 30 of 80 yes. cov(y, f) = (8 - 8 x 10 / 20) / 19 = 4/19; var of the run = 24/99;
    lambda = (4/19) / (24/99) / (1 + 20/80); value = lambda 30/80 + 8/20 - lambda 10/20.
    """
    judge, people = labels(8, 0, 2, 10)
    weight = (4 / 19) / (24 / 99) / 1.25
    got = ppi(numbers([True] * 40 + [False] * 60), numbers(judge), numbers(people))
    assert got.value == pytest.approx(weight * 30 / 80 + 8 / 20 - weight * 10 / 20)
    left = np.array(people, float) - weight * np.array(judge, float)
    error = math.sqrt(weight**2 * (0.375 * 0.625 * 80 / 79) / 80 + left.var(ddof=1) / 20)
    assert got == pytest.approx(tuple(share_interval(got.value, error, least=20, most=100, df=19, level=0.95)))


def test_a_useless_judge_leaves_the_human_mean() -> None:
    """Uncorrelated with people: lambda is 0."""
    judge, people = labels(5, 5, 5, 5)
    got = ppi(numbers([True] * 50 + [False] * 50), numbers(judge), numbers(people))
    assert got.value == 0.5


def test_a_bias_of_the_judge_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(3, 1, 400)
    judge = truth + rng.normal(0, 0.2, 400)
    plain, biased = (ppi(list(judge + b), list(judge[:80] + b), list(truth[:80])) for b in (0, 10))
    assert tuple(plain) == pytest.approx(tuple(biased))
    assert plain.low < truth.mean() < plain.high


def test_a_good_judge_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1, 1000)
    good, none = (ppi(list(f), list(f[:60]), list(truth[:60])) for f in (truth + rng.normal(0, 0.2, 1000), 0 * truth))
    assert good.high - good.low < 0.5 * (none.high - none.low)


def test_labels_without_spread_are_no_certainty() -> None:
    """60 labels, all no: as wide as 60 samples, though judge and people agree throughout."""
    got = ppi([0.0] * 500, [0.0] * 60, [0.0] * 60)
    assert (got.value, got.low) == (0, 0)
    assert got.high == pytest.approx(0.0626, abs=1e-3)  # t^2 / (60 + t^2) with t = 2.001
    assert math.isnan(ppi([0.3] * 9, [0.3] * 5, [0.3] * 5).low)


def test_more_labels_than_verdicts_are_refused() -> None:
    with pytest.raises(BadParameter, match="3 samples are labelled, but only 2 judged"):
        ppi([1.0, 0.0], [1.0] * 3, [1.0] * 3)
    with pytest.raises(BadParameter, match="differ in length"):
        rogan_gladen([True], [True], [True, False])


def test_one_label_gives_no_number() -> None:
    assert all(math.isnan(x) for x in ppi([1.0, 0.0], [1.0], [1.0]))
