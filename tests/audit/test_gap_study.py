"""The study of gap and robustness: a rank correlation by hand, its interval over methods, and the page."""

from __future__ import annotations

import json
import math
from itertools import permutations

import pytest
from tools.gap_study import PAGE, correlation, drawn, page_of, section
from tools.robustness import RUNS

METHODS = ("none", "a", "a", "b", "c", "d")


def test_a_rank_correlation_by_hand_and_what_permuted_runs_give() -> None:
    """Ranks 1 2 3 4 and 1 2 4 3 differ by 0 0 1 1: 1 - 6 * 2 / (4 * 15) = 0.8. Of 24 orders 8 are as far from 0."""
    found = correlation([0.1, 0.2, 0.3, 0.4], [1.0, 5.0, 90.0, 20.0], ["a", "b", "c", "d"], seed=0)
    assert found.value == pytest.approx(0.8)
    far = sum(
        abs(1 - sum((k - place) ** 2 for k, place in enumerate(order)) / 10) >= 0.8 for order in permutations(range(4))
    )
    assert far == 8
    assert found.chance == pytest.approx(far / 24, abs=0.04)
    assert (found.n, found.methods) == (4, 4)


def test_what_rises_together_has_1_and_what_does_not_vary_has_none() -> None:
    assert correlation(range(6), range(6), METHODS, seed=0).value == 1
    flat = correlation(range(6), [1.0] * 6, METHODS, seed=0)
    assert math.isnan(flat.value)


def test_many_runs_of_one_method_are_no_more_certain_than_one() -> None:
    """Ten methods, then each of them five times over: the interval is as wide."""
    x, y, names = [*range(10)], [3, 1, 4, 0, 5, 9, 2, 6, 8, 7], [str(k) for k in range(10)]
    once, often = correlation(x, y, names, seed=0), correlation(x * 5, y * 5, names * 5, seed=0)
    assert once.high - once.low == pytest.approx(often.high - often.low, abs=0.05)
    assert once.low < once.value < once.high


def test_only_runs_with_both_numbers_count() -> None:
    numbers = [{"gap": [k / 10, 0, 1, 9], "attacked 5/255": [k / 9, 0, 1, 9]} for k in range(4)]
    runs = [{"method": f"m{k}", "values": values} for k, values in enumerate([*numbers, {"gap": [0.5, 0, 1, 9]}])]
    line = next(line for line in section(runs).splitlines() if line.startswith("| gap and accuracy attacked"))
    assert line.split("|")[2].strip().startswith("1.00")
    assert line.endswith("| 4, 4 |")
    assert len(drawn(runs).axes[0].containers) == 4


def test_the_page_shows_the_committed_runs() -> None:
    """`python -m tools.gap_study` writes it anew."""
    text = PAGE.read_text()
    assert page_of(text, json.loads(RUNS.read_text())) == text
    assert "<!-- study -->" in text
