"""Noise, clipping and the ledger: sensitivity is what it is said to be, and the accountant counts what it should."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from vlmend.errors import BadParameter
from vlmend.training.private import ORDERS, clipped, drawn_groups, ledger_for, private_gradient, spent

pytest.importorskip("opacus")

vectors = st.lists(st.floats(-100, 100), min_size=3, max_size=3).map(lambda one: torch.tensor(one))


@given(vectors, st.floats(0.01, 10))
def test_a_clipped_gradient_keeps_its_direction_and_is_no_longer_than_asked(gradient: Tensor, most: float) -> None:
    short = clipped(gradient, most)
    assert float(short.norm()) <= most * (1 + 1e-5)
    assert torch.allclose(short * float(gradient.norm()), gradient * float(short.norm()), atol=1e-2)


@given(st.lists(vectors, min_size=1, max_size=5), vectors, st.floats(0.1, 5))
@settings(max_examples=60)
def test_one_group_moves_the_step_by_the_sensitivity_at_most(held: list[Tensor], other: Tensor, most: float) -> None:
    groups = [[place] for place in range(len(held))]
    draws = Generator()
    before = private_gradient(groups, lambda rows: held[rows[0]], most, 0.0, draws)
    after = private_gradient(groups, lambda rows: other if rows == [0] else held[rows[0]], most, 0.0, draws)
    assert float((before - after).norm()) <= 2 * most / len(held) * (1 + 1e-4)


def test_two_opposed_gradients_reach_the_sensitivity() -> None:
    one = torch.tensor([3.0, 4.0])
    plus, minus = (private_gradient([[0]], lambda rows, s=sign: s * one, 1.0, 0.0, Generator()) for sign in (1, -1))
    assert float((plus - minus).norm()) == pytest.approx(2.0)


def test_noise_has_the_deviation_that_was_promised() -> None:
    draws = Generator().manual_seed(0)
    found = private_gradient([[0]] * 4, lambda rows: torch.zeros(40_000), 3.0, 0.5, draws)
    assert float(found.std()) == pytest.approx(0.5 * 2 * 3.0 / 4, rel=0.02)


def test_without_noise_and_clipping_the_step_is_the_mean_gradient() -> None:
    held = torch.tensor([[1.0, 2.0], [3.0, -40.0]])
    found = private_gradient([[0], [1]], lambda rows: held[rows[0]], math.inf, 0.0, Generator())
    assert torch.equal(found, held.mean(0))


@given(st.integers(1, 60), st.floats(0.01, 1), st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=40)
def test_each_row_falls_into_one_group_at_most(rows: int, sampling: float, groups: int, seed: int) -> None:
    drawn = drawn_groups(rows, sampling, groups, Generator().manual_seed(seed))
    every = [row for group in drawn for row in group]
    assert len(drawn) == groups
    assert len(set(every)) == len(every)
    assert set(every) <= set(range(rows))


def test_rows_come_as_often_as_asked_for_and_each_by_itself() -> None:
    draws = Generator().manual_seed(0)
    sizes = torch.tensor([float(sum(map(len, drawn_groups(400, 0.25, 4, draws)))) for _ in range(300)])
    assert float(sizes.mean()) == pytest.approx(100, abs=1.5)
    assert float(sizes.var()) == pytest.approx(400 * 0.25 * 0.75, rel=0.35)  # a shuffled batch would not vary at all


# --- the ledger


@pytest.mark.parametrize("noise", [0.8, 1.0, 3.0])
def test_one_step_over_all_rows_costs_what_the_gaussian_mechanism_does(noise: float) -> None:
    """Renyi divergence a / (2 s^2), brought to (epsilon, delta) at the best order."""
    delta = 1e-5
    told = [
        a / (2 * noise**2) + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in ORDERS
    ]  # fmt: skip
    assert spent(noise, 1.0, 1, delta) == pytest.approx(min(told), rel=1e-6)


def test_the_ledger_keeps_its_promise_and_no_better_than_needed() -> None:
    ledger = ledger_for(2.0, 1e-5, 0.1, 100)
    assert 1.9 < ledger.epsilon <= 2.0
    assert spent(ledger.noise, 0.1, 100, 1e-5) == ledger.epsilon
    assert ledger_for(2.0, 1e-5, 0.1, 200).noise > ledger.noise < ledger_for(1.0, 1e-5, 0.1, 100).noise


@pytest.mark.parametrize(
    ("epsilon", "delta", "sampling", "steps"),
    [(0.0, 1e-5, 0.1, 9), (-1.0, 1e-5, 0.1, 9), (math.inf, 1e-5, 0.1, 9), (math.nan, 1e-5, 0.1, 9), (1.0, 0.0, 0.1, 9),
     (1.0, 1.0, 0.1, 9), (1.0, 1e-5, 0.0, 9), (1.0, 1e-5, 1.5, 9), (1.0, 1e-5, 0.1, 0)],
)  # fmt: skip
def test_what_promises_nothing_is_refused(epsilon: float, delta: float, sampling: float, steps: int) -> None:
    with pytest.raises(BadParameter, match="promise nothing"):
        ledger_for(epsilon, delta, sampling, steps)
