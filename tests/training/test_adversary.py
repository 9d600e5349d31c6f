"""The inner adversary: bounds, the best it can do to a linear loss, and why it starts at random."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.errors import BadParameter
from vlmend.training.adversary import Adversary, worst_pixels


def test_against_a_linear_loss_it_finds_the_corner() -> None:
    """w = (2, -1, 0.5) at pixels of 0.5 and epsilon 0.1: the best is 0.1 * (1, -1, 1), a gain of 0.1 * 3.5."""
    weight, values = torch.tensor([2.0, -1.0, 0.5]), torch.full((3,), 0.5)
    found = worst_pixels(lambda pixels: pixels @ weight, values, Adversary(0.1, steps=10, rate=0.05), seed=0)
    torch.testing.assert_close(found, torch.tensor([0.6, 0.4, 0.6]))


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 4))
def test_pixels_stay_within_epsilon_and_between_black_and_white(seed: int, epsilon: float, steps: int) -> None:
    values = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    found = worst_pixels(lambda pixels: pixels.square().sum(), values, Adversary(epsilon, steps, 0.3), seed)
    assert (found - values).abs().max() <= epsilon + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_start_where_the_loss_is_smallest_would_never_move() -> None:
    """The gradient of |x - x0|^2 is zero at x0; from the random start the far corner is reached all the same."""
    values = torch.full((4,), 0.5)
    here = values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((here - values).square().sum(), here)
    assert gradient.tolist() == [0.0] * 4
    found = worst_pixels(lambda pixels: (pixels - values).square().sum(), values, Adversary(0.1, 5, 0.05), seed=0)
    torch.testing.assert_close((found - values).abs(), torch.full((4,), 0.1))


def test_the_seed_decides_the_start_and_epsilon_0_leaves_pixels_alone() -> None:
    values = torch.full((8,), 0.5)
    first, again, other = (worst_pixels(torch.sum, values, Adversary(0.1, 0), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(worst_pixels(torch.sum, values, Adversary(0.0), 0), values)


@pytest.mark.parametrize(
    "wrong", [{"epsilon": -0.1}, {"epsilon": 2.0}, {"steps": -1}, {"rate": -1.0}, {"momentum": 1.0}]
)
def test_bounds_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        Adversary(**{"epsilon": 0.1} | wrong)
