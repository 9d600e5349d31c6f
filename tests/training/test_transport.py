"""Entropic transport and the Sinkhorn divergence: margins, a plan by hand, where each is least, and geomloss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.training.transport import divergence, transport, transport_plan


def units(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def every(rows: Tensor) -> Tensor:
    return torch.ones(rows.shape[:2], dtype=torch.bool)


def test_a_plan_by_hand() -> None:
    """Costs 0 and 1 crosswise, blur 1/2: each row is half a softmax of (0, -2), that is 0.4404 and 0.0596."""
    plan = transport_plan(torch.tensor([[[0.0, 1], [1, 0]]]), *2 * (torch.ones(1, 2, dtype=torch.bool),), 0.5)
    near = 0.5 / (1 + math.exp(-2))
    torch.testing.assert_close(plan[0], torch.tensor([[near, 0.5 - near], [0.5 - near, near]]))


def test_the_margins_are_even_and_what_is_not_kept_weighs_nothing() -> None:
    one, other = units(3, 4, 6), units(3, 5, 6, seed=1)
    kept = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    plan = transport_plan(1 - one @ other.mT, every(one), kept, 0.1)
    torch.testing.assert_close(plan.sum(2), torch.full((3, 4), 0.25), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(1), kept / kept.sum(1, keepdim=True), atol=1e-6, rtol=0)


def test_the_divergence_is_0_where_the_sets_are_the_same_in_any_order_and_above_elsewhere() -> None:
    one = units(4, 3, 8)
    same = divergence(one, one[:, [2, 0, 1]], every(one), 0.1)
    torch.testing.assert_close(same, torch.zeros(4), atol=1e-6, rtol=0)
    assert bool((divergence(one, units(4, 5, 8, seed=1), torch.ones(4, 5, dtype=torch.bool), 0.1) > 0.01).all())


def test_plain_transport_is_less_for_a_set_drawn_to_its_mean_and_the_divergence_is_not() -> None:
    """Why the divergence: two descriptions 0.2 apart in 1 - cosine are blurred at 0.1."""
    wanted = normalize(torch.tensor([[[1.0, 0.0], [0.8, 0.6]]]), dim=2)
    drawn = normalize(wanted + wanted.mean(1, keepdim=True), dim=2)
    both = every(wanted)
    assert float(transport(drawn, wanted, both, both, 0.1)) < float(transport(wanted, wanted, both, both, 0.1))
    assert float(divergence(drawn, wanted, both, 0.1)) > float(divergence(wanted, wanted, both, 0.1))


def test_the_gradient_is_that_of_the_value() -> None:
    """Along one direction, by central differences."""
    one, other, way = (units(1, 3, 5, seed=k).double() for k in range(3))
    one.requires_grad_()
    divergence(one, other, every(other), 0.1).sum().backward()
    assert one.grad is not None
    step = 1e-4
    with torch.no_grad():
        up, down = (divergence(one + sign * step * way, other, every(other), 0.1) for sign in (1, -1))
    assert float((one.grad * way).sum()) == pytest.approx(float((up - down) / (2 * step)), rel=1e-2)


def test_it_agrees_with_geomloss() -> None:
    geomloss = pytest.importorskip("geomloss")
    peer = geomloss.SamplesLoss("sinkhorn", p=2, blur=0.1**0.5, scaling=0.999, backend="tensorized")
    one, other = units(2, 4, 6), units(2, 5, 6, seed=1)
    torch.testing.assert_close(divergence(one, other, every(other), 0.1), peer(one, other), atol=2e-4, rtol=1e-3)
