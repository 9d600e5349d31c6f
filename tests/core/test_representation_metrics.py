"""nPMI and the typology angle: ends and middles worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlmend.core.metrics.representation import associations, ita, npmi


def table(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows, np.float64)


def test_independent_words_have_no_association() -> None:
    assert npmi(table((20, 30), (40, 60))) == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_words_that_occur_only_together_have_one_and_never_minus_one() -> None:
    assert npmi(table((10, 0), (0, 30))).tolist() == [[pytest.approx(1), -1], [-1, pytest.approx(1)]]


def test_a_table_by_hand() -> None:
    # p(r, c) = 0.3, p(r) = 0.4, p(c) = 0.5: ln(0.3 / 0.2) / -ln 0.3 = 0.4055 / 1.2040 = 0.3368
    assert npmi(table((30, 10), (20, 40)))[0, 0] == pytest.approx(math.log(1.5) / -math.log(0.3))
    assert npmi(table((30, 10), (20, 40)))[0, 0] == pytest.approx(0.3368, abs=1e-4)


def test_what_never_occurs_has_no_association() -> None:
    assert np.isnan(npmi(table((0, 0), (5, 5)))[0]).all()
    assert np.isnan(associations(table((0, 0), (0, 0)), seed=0).value).all()


def test_intervals_hold_the_value_and_depend_on_the_seed_alone() -> None:
    one, two = (associations(table((60, 20), (40, 80)), seed=3) for _ in range(2))
    assert (one.low < one.value).all()
    assert (one.value < one.high).all()
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


def test_more_mentions_make_the_interval_narrower() -> None:
    few, many = (associations(table((6, 2), (4, 8)) * k, seed=0) for k in (1, 25))
    assert (many.high - many.low < few.high - few.low).all()


def test_a_table_that_cannot_vary_has_no_interval() -> None:
    found = associations(table((10, 0), (0, 30)), seed=0)
    assert np.isnan(found.low[0, 1])
    assert found.value[0, 1] == -1


def test_coverage_of_the_interval_is_near_its_level() -> None:
    shares = np.array([[0.3, 0.1], [0.2, 0.4]])
    true, rng, held = npmi(shares * 1000)[0, 0], np.random.default_rng(0), 0
    for k in range(200):
        drawn = rng.multinomial(300, shares.ravel()).reshape(2, 2).astype(np.float64)
        found = associations(drawn, seed=k, draws=400)
        held += bool(found.low[0, 0] <= true <= found.high[0, 0])
    assert 0.90 <= held / 200 <= 0.99


def test_the_angle_falls_as_a_patch_of_skin_darkens() -> None:
    base = np.array([224, 172, 140])
    angles = [ita(np.tile((base * k).astype(np.uint8), (4, 4, 1))) for k in (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)]
    assert angles == sorted(angles, reverse=True)
    assert angles[0] > 28 > -30 > angles[-1]


def test_the_angle_of_a_colour_by_hand() -> None:
    # pure red, sRGB (255, 0, 0), is L* 53.24, a* 80.09, b* 67.20: atan(3.24 / 67.20) = 2.76 degrees
    assert ita(np.array([[[255, 0, 0]]], np.uint8)) == pytest.approx(2.76, abs=0.02)
