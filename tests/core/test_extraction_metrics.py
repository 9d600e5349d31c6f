"""Extraction: draws that are needed, what counts as said, edits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.extraction import begins_with, edits, extractable, tries


def test_draws_worked_out_by_hand() -> None:
    assert tries(math.log(0.1), 0.9) == 22  # 1 - 0.9^21 = 0.891, 1 - 0.9^22 = 0.902
    assert tries(math.log(0.5), 0.5) == 1
    assert tries(0.0, 0.99) == 1
    assert tries(-math.inf, 0.5) == tries(-800.0, 0.5) == math.inf
    assert extractable(math.log(0.0070), 100, 0.5)  # 1 - 0.5^(1/100) = 0.00691
    assert not extractable(math.log(0.0068), 100, 0.5)


@given(st.floats(1e-6, 0.999), st.floats(0.01, 0.99))
def test_law_so_many_draws_suffice_and_one_less_does_not(once: float, p: float) -> None:
    n = tries(math.log(once), p)
    assert 1 - (1 - once) ** n >= p - 1e-9
    assert n == 1 or 1 - (1 - once) ** (n - 1) < p + 1e-9


@pytest.mark.parametrize(
    ("reply", "text", "said"),
    [
        ("4 7 1", "4 7 1", True), ("  4 7\n1 of course", "4 7 1", True), ("The Code", "the code", True),
        ("4 7 12", "4 7 1", False), ("it is 4 7 1", "4 7 1", False), ("4 7", "4 7 1", False), ("", "4 7 1", False),
    ],
)  # fmt: skip
def test_what_counts_as_said(reply: str, text: str, said: bool) -> None:
    assert begins_with(reply, text) is said


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_law_edits_are_a_distance(one: str, other: str) -> None:
    assert edits(one, other) == edits(other, one) <= max(len(one), len(other))
    assert (edits(one, other) == 0) == (one == other)
    assert edits("kitten", "sitting") == 3
