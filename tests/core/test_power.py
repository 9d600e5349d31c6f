"""Sample sizes and power: enumeration in view, and simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from vlmend.core.metrics.power import paired_n, paired_power, plan_table, smallest_n
from vlmend.core.metrics.stats import mcnemar, wilson
from vlmend.errors import BadParameter


def test_power_of_six_pairs_by_hand() -> None:
    """Two-sided 2 / 2^m <= 0.05 first at m = 6, all one way: 0.5^6 + 0.1^6."""
    assert paired_power(6, 0.5, 0.1) == pytest.approx(0.5**6 + 0.1**6)
    assert paired_power(5, 0.5, 0.1) == 0


def test_power_by_enumerating_every_outcome() -> None:
    """Each of 7 pairs is fixed (0.6), broken (0.1) or unchanged (0.3): 3^7 outcomes, tested by mcnemar."""
    pairs = {"fixed": (0.6, True, False), "broken": (0.1, False, True), "same": (0.3, True, True)}
    total = 0.0
    for outcome in product(pairs.values(), repeat=7):
        if mcnemar([b for _, b, _ in outcome], [a for _, _, a in outcome]).p_value <= 0.05:
            total += math.prod(share for share, _, _ in outcome)
    assert paired_power(7, 0.6, 0.1) == pytest.approx(total, abs=1e-12)


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    tables = rng.multinomial(40, [0.3, 0.08, 0.62], size=4000)
    kinds, counts = np.unique(tables[:, :2], axis=0, return_counts=True)
    rejected = sum(
        int(count) * (mcnemar([True] * f + [False] * b, [False] * f + [True] * b).p_value <= 0.05)
        for (f, b), count in zip(kinds.tolist(), counts, strict=True)
    )
    # four standard errors of a share of 4000
    assert paired_power(40, 0.3, 0.08) == pytest.approx(rejected / 4000, abs=0.032)


def test_without_a_change_the_test_keeps_its_level() -> None:
    assert all(paired_power(n, share, share) <= 0.05 for n in (10, 80, 400) for share in (0.02, 0.2, 0.5))
    assert paired_power(10, 0.0, 0.0) == 0


@pytest.mark.parametrize(("fixed", "broken", "power"), [(0.42, 0.02, 0.8), (0.1, 0.0, 0.9), (0.2, 0.1, 0.8)])
def test_paired_n_is_the_smallest_and_all_beyond_do(fixed: float, broken: float, power: float) -> None:
    n = paired_n(fixed, broken, power=power)
    assert paired_power(n - 1, fixed, broken) < power
    assert all(paired_power(m, fixed, broken) >= power for m in range(n, n + 60))


def test_smallest_n_is_where_wilsons_interval_fits() -> None:
    """+-10 points at a rate of one half: n + z^2 = z^2 / (4 x 0.01) = 96.04, so 93 by rounding up 92.2."""
    n = smallest_n(0.1)
    assert n == 93
    widest = max(wilson(k, n).high - wilson(k, n).low for k in range(n + 1))
    assert widest <= 0.2
    assert wilson(46, 92).high - wilson(46, 92).low > 0.2


def test_rates_near_the_ends_need_fewer_samples() -> None:
    assert smallest_n(0.05, rate=0.05) < smallest_n(0.05, rate=0.2) < smallest_n(0.05)
    assert smallest_n(0.05, level=0.99) > smallest_n(0.05)


def test_a_plan_is_made_of_these_numbers() -> None:
    rows = {row["what"]: row for row in plan_table(rate=0.6, to=0.2, n=80)}
    before = rows["rate before"]
    assert (before["low"], before["high"]) == pytest.approx(wilson(48, 80)[1:], abs=1e-6)
    assert rows["smallest n for +-5 points"]["n"] == smallest_n(0.05, rate=0.6)
    assert rows["power of the paired test"]["value"] == paired_power(80, 0.42, 0.02)
    assert rows["smallest n for 80% power"]["n"] == paired_n(0.42, 0.02) == 21
    assert rows["smallest n for 90% power"]["n"] == paired_n(0.42, 0.02, power=0.9) == 25


def test_a_plan_tells_all_that_is_wrong_with_it() -> None:
    with pytest.raises(BadParameter, match=r"rate=60\.0 is not between 0 and 1; n=0 is below 1"):
        plan_table(rate=60.0, to=0.2, n=0)
    with pytest.raises(BadParameter, match="swap them"):
        plan_table(rate=0.2, to=0.6, n=80)
    with pytest.raises(BadParameter, match="more than these rates leave"):
        plan_table(rate=0.99, to=0.2, n=80, broken=0.05)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(BadParameter, match="nothing to find"):
        paired_n(0.1, 0.1)
    with pytest.raises(BadParameter, match="million"):
        paired_n(0.1001, 0.1)
    with pytest.raises(BadParameter, match="million"):
        smallest_n(0.0001)
    with pytest.raises(BadParameter, match=r"half_width=5\.0"):
        smallest_n(5.0)
    with pytest.raises(BadParameter, match="more than all"):
        paired_power(10, 0.7, 0.6)
