"""Entropic optimal transport between small sets of unit vectors, differentiable, in the logarithmic domain.

With the cost c = 1 - cosine, all vectors of a set weighing alike, and plans P with these weights as their margins,

    OT(A, B) = min over P of sum P c + blur KL(P | product of the margins)

(Cuturi, NeurIPS 2013). It is not least where A = B: the plan is blurred, so vectors are drawn to the mean of the other
set. The Sinkhorn divergence is (Feydy et al., AISTATS 2019, arXiv 1810.08278), and it is 0 there:

    S(A, B) = OT(A, B) - OT(A, A) / 2 - OT(B, B) / 2
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["divergence", "transport", "transport_plan"]

ROUNDS = 500
"""Rounds of scaling at most."""
NEAR = 1e-6
"""Change of a logarithm at which scaling ends: the margins are as near, as shares."""


def divergence(
    one: Float[Tensor, "row a width"], other: Float[Tensor, "row b width"], kept: Bool[Tensor, "row b"], blur: float
) -> Float[Tensor, " row"]:
    """The Sinkhorn divergence of two sets in each row, 0 or more up to rounding; `kept` says which of `other` count."""
    every = torch.ones(one.shape[:2], dtype=torch.bool)
    own = transport(one, one, every, every, blur) + transport(other, other, kept, kept, blur)
    return transport(one, other, every, kept, blur) - own / 2


def transport(
    one: Float[Tensor, "row a width"], other: Float[Tensor, "row b width"],
    kept_one: Bool[Tensor, "row a"], kept_other: Bool[Tensor, "row b"], blur: float,
) -> Float[Tensor, " row"]:  # fmt: skip
    """OT of two sets in each row. Its gradient in the cost is the plan, which is held."""
    cost = 1 - one @ other.mT
    with torch.no_grad():
        plan = transport_plan(cost, kept_one, kept_other, blur)
        product = _shares(kept_one)[:, :, None] * _shares(kept_other)[:, None]
        ratio = (plan / product.clamp_min(1e-30)).clamp_min(1e-30)
        entropy = (plan * ratio.log()).sum((1, 2))
    return (plan * cost).sum((1, 2)) + blur * entropy


@torch.no_grad()
def transport_plan(
    cost: Float[Tensor, "row a b"], kept_one: Bool[Tensor, "row a"], kept_other: Bool[Tensor, "row b"], blur: float
) -> Float[Tensor, "row a b"]:
    """The plan of least cost; its sums over one set are the weights of the other, what is not kept weighs nothing."""
    rows, columns = _shares(kept_one).log()[:, :, None], _shares(kept_other).log()[:, None]
    kernel = -cost / blur
    left, right = torch.zeros_like(kernel[:, :, :1]), torch.zeros_like(kernel[:, :1])
    for _ in range(ROUNDS):
        before, left = left, -torch.logsumexp(columns + kernel + right, dim=2, keepdim=True)
        right = -torch.logsumexp(rows + kernel + left, dim=1, keepdim=True)
        if float((left - before).nan_to_num().abs().max()) <= NEAR:
            break
    return (rows + columns + kernel + left + right).exp()


def _shares(kept: Bool[Tensor, "row item"]) -> Float[Tensor, "row item"]:
    """Weights of a set: alike for all that are kept."""
    return kept / kept.sum(1, keepdim=True)
