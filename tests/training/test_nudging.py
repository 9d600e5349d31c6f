"""Nudged embeddings: a step by hand, lengths, padding and bounds, one pass is the loss itself, hooks are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmend.errors import ModelProblem
from vlmend.testing import hook_count
from vlmend.training.losses import divergence
from vlmend.training.nudging import Climb, Door, Nudge, nudged_loss


class Squares(nn.Module):
    """Gives back what it is given; the loss below squares it."""

    def forward(self, values: Tensor) -> Tensor:
        return values


def passes(module: nn.Module, values: Tensor, seen: list[Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    def once() -> tuple[Tensor, Tensor]:
        out = module(values)
        seen.append(out.detach().clone())
        return out.square().sum(), out.flatten(1)

    return once


def nothing(one: Tensor, other: Tensor) -> Tensor:
    return torch.zeros(())


def test_two_steps_by_hand() -> None:
    """Of (3, 4), as long as 5, the square grows along itself: by 0.1 * 5 a step to lengths 5.5 and 6.

    The losses are 25, 30.25 and 36, a third of their sum 30.4167.
    """
    module, seen = Squares(), list[Tensor]()
    once = passes(module, torch.tensor([[[3.0, 4.0]]]), seen)
    total = nudged_loss(once, Door(module), Climb(3, 0.1), nothing, 1.5, 0)
    assert total.item() == pytest.approx((25 + 30.25 + 36) / 3)
    torch.testing.assert_close(seen[1], torch.tensor([[[3.3, 4.4]]]))
    torch.testing.assert_close(seen[2], torch.tensor([[[3.6, 4.8]]]))
    assert hook_count(module) == 0


@given(st.integers(0, 500), st.floats(0.01, 0.5), st.sampled_from((0.0, 0.05, 0.2)), st.integers(2, 5), st.booleans())
def test_a_change_is_no_longer_than_its_steps_and_its_bound_and_never_on_padding(
    seed: int, step: float, epsilon: float, rounds: int, random: bool
) -> None:
    values = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(seed))
    free = torch.tensor([[True, True, True, True], [True, True, False, False], [True, False, False, False]])[..., None]
    module, seen = Squares(), list[Tensor]()
    door, climb = Door(module, free=free), Climb(rounds, step, epsilon, random)
    nudged_loss(passes(module, values, seen), door, climb, nothing, 0.0, seed)
    sizes = (values * free).flatten(1).norm(dim=1)
    for k, one in enumerate(seen):
        change = one - values
        assert not change[~free.expand_as(change)].any()
        assert (change.flatten(1).norm(dim=1) <= min(k * step, epsilon or torch.inf) * sizes + 1e-5).all()
    assert not torch.equal(seen[1], seen[0])


def test_each_row_has_a_step_of_its_own_length_whatever_the_others_are() -> None:
    values = torch.tensor([[[3.0, 4.0]], [[300.0, 400.0]]])
    module, seen = Squares(), list[Tensor]()
    nudged_loss(passes(module, values, seen), Door(module), Climb(2, 0.1), nothing, 0.0, 0)
    torch.testing.assert_close(seen[1], 1.1 * values)


def test_a_row_without_a_gradient_stays() -> None:
    values, module, seen = torch.zeros(2, 1, 2), Squares(), list[Tensor]()
    nudged_loss(passes(module, values, seen), Door(module), Climb(3, 0.1), nothing, 0.0, 0)
    assert torch.equal(seen[2], values)


def test_one_pass_is_the_loss_itself_and_puts_no_hook() -> None:
    module, seen = Squares(), list[Tensor]()
    once = passes(module, torch.ones(1, 1, 2), seen)
    assert nudged_loss(once, Door(module), Climb(1, 0.1), nothing, 9.0, 0).item() == 2
    assert len(seen) == 1


def test_the_divergence_from_the_clean_pass_is_weighed_and_zero_at_first() -> None:
    """With weight 2 the loss of the second pass is its square and twice its divergence."""
    module, seen = Squares(), list[Tensor]()
    once = passes(module, torch.tensor([[[3.0, 4.0]]]), seen)
    total = nudged_loss(once, Door(module), Climb(2, 0.1), divergence, 2.0, 0)
    apart = divergence(seen[1].flatten(1), seen[0].flatten(1))
    assert total.item() == pytest.approx((25 + 30.25 + 2 * float(apart)) / 2)


def test_a_divergence_by_hand_and_its_laws() -> None:
    """3/4 and 1/4 against 1/4 and 3/4: (1/2) ln 3 twice."""
    one, other = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 3.0]]).log()
    assert float(divergence(one, other)) == pytest.approx(torch.tensor(3.0).log().item())
    assert float(divergence(one, other)) == float(divergence(other, one))
    assert float(divergence(one, one + 5)) == pytest.approx(0, abs=1e-6)


def test_weights_stand_still_between_passes_and_gradients_add_up() -> None:
    """Of w x with x changed up its gradient: the sum of both passes' gradients, of the weights as they were."""
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    values = torch.tensor([[1.0, 2.0]])
    nudge_free = passes(layer, values, [])
    loss = nudged_loss(nudge_free, Door(layer, entering=True), Climb(2, 0.1), nothing, 0.0, 0)
    loss.backward()
    assert torch.equal(layer.weight, before)
    out = values @ before.T
    up = 2 * out @ before
    moved = values + 0.1 * values.norm() * up / up.norm()
    wanted = sum((2 * (x @ before.T).T @ x for x in (values, moved)), torch.zeros(2, 2)) / 2
    torch.testing.assert_close(layer.weight.grad, wanted)


def test_pictures_that_were_joined_are_refused_and_the_hook_is_gone() -> None:
    module = Squares()
    once = passes(module, torch.ones(6, 1, 2), [])
    with pytest.raises(ModelProblem, match="6 rows for 2 pictures"):
        nudged_loss(once, Door(module, rows=2), Climb(2, 0.1), nothing, 0.0, 0)
    assert hook_count(module) == 0


def test_a_nudge_is_zero_until_it_climbs() -> None:
    values = torch.randn(2, 3, 4)
    assert torch.equal(Nudge(None, torch.Generator())(values), values)
