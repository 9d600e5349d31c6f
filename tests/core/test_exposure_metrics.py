"""Exposure: ranks by hand, the law of what is unknown to the model, alternatives of the same form."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.exposure import alternatives, exposure, exposure_by_chance


def test_exposure_by_hand() -> None:
    assert exposure(5.0, [1.0, 2.0, 3.0]) == 2.0  # first of four
    assert exposure(2.0, [1.0, 2.0, 3.0]) == pytest.approx(2 - math.log2(3))  # a tie counts against it: third
    assert exposure(0.0, [1.0, 2.0, 3.0]) == 0.0
    assert exposure_by_chance(4) == pytest.approx((2 + 1 + (2 - math.log2(3)) + 0) / 4)
    assert exposure_by_chance(10**5) == pytest.approx(1 / math.log(2), abs=1e-3)


def test_of_what_is_unknown_at_least_x_bits_have_probability_two_to_the_minus_x() -> None:
    rng = np.random.default_rng(0)
    found = np.array([exposure(row[0], list(row[1:])) for row in rng.normal(size=(4000, 64))])
    for bits in (1, 2, 4):
        share = float((found >= bits).mean())
        assert share == pytest.approx(2.0**-bits, abs=4 * math.sqrt(2.0**-bits / 4000))
    assert found.mean() == pytest.approx(exposure_by_chance(64), abs=4 * found.std() / math.sqrt(4000))


@given(st.text("0123456789 -", min_size=1, max_size=6), st.integers(1, 300), st.integers(0, 99))
def test_alternatives_have_the_same_form_and_are_all_others_where_these_are_few(
    secret: str, most: int, seed: int
) -> None:
    found = alternatives(secret, "0123456789", most, random.Random(seed))
    slots = sum(letter.isdigit() for letter in secret)
    assert len(set(found)) == len(found) == min(10**slots - 1, most)
    assert secret not in found
    form = [letter if not letter.isdigit() else "0" for letter in secret]
    assert all([x if not x.isdigit() else "0" for x in other] == form for other in found)


def test_every_alternative_is_drawn_as_often() -> None:
    counts = dict.fromkeys((f"{k}" for k in range(10)), 0)
    for seed in range(3000):
        for code in alternatives("7", "0123456789", 3, random.Random(seed)):
            counts[code] += 1
    assert counts.pop("7") == 0
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in counts.values())
