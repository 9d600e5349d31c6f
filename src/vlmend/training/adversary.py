"""The inner adversary of adversarial training: the pixels near some images that a loss is largest at.

Projected gradient ascent in the largest norm with momentum, as in the code of Schlarmann et al. 2024
(arXiv 2402.12336): the sign of the gradient is added to a velocity, whose sign is the direction of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.errors import BadParameter

__all__ = ["Adversary", "worst_pixels"]


@dataclass(frozen=True)
class Adversary:
    """How hard the inner adversary tries.

    Attributes:
        epsilon: Largest change of a pixel, as a share of black to white.
        steps: Gradient steps.
        rate: Size of a step, as a share of black to white.
        momentum: What a step keeps of the velocity before.
    """

    epsilon: float
    steps: int = 10
    rate: float = 1 / 255
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1 or self.steps < 0 or self.rate < 0 or not 0 <= self.momentum < 1:
            raise BadParameter(
                f"epsilon={self.epsilon:g}, steps={self.steps}, rate={self.rate:g} and momentum={self.momentum:g} make "
                "no adversary.",
                "epsilon lies between 0 and 1 (4/255), steps and rate are at least 0, momentum is below 1.",
            )


def worst_pixels(
    loss: Callable[[Float[Tensor, "*pixels"]], Tensor],
    values: Float[Tensor, "*pixels"],
    adversary: Adversary,
    seed: int,
) -> Float[Tensor, "*pixels"]:
    """Pixels within epsilon of `values` and between 0 and 1 at which the loss is large.

    It starts at a uniform random place within epsilon: where the loss is smallest at `values` themselves, its gradient
    there is zero, and a start there would never move.

    Args:
        loss: A scalar of the pixels; its gradient in anything else is not taken.
        values: Pixels, 0 to 1.
        adversary: Its bounds.
        seed: Of the start.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(values.shape, generator=generator).to(values) * 2 - 1
    change = _within(adversary.epsilon * noise, values, adversary)
    velocity = torch.zeros_like(values)
    for _ in range(adversary.steps if adversary.epsilon else 0):
        change.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(values + change), change)
        velocity = (adversary.momentum * velocity + gradient.sign()).sign()
        change = _within(change.detach() + adversary.rate * velocity, values, adversary)
    return (values + change).detach()


def _within(change: Tensor, values: Tensor, adversary: Adversary) -> Tensor:
    return (values + change.clamp(-adversary.epsilon, adversary.epsilon)).clamp(0, 1) - values
