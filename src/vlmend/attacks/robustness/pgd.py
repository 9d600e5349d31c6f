"""PGD: climb the loss of the right answer in signed steps, within epsilon of the picture.

Projected gradient descent, Madry et al., arXiv 1706.06083 (ICLR 2018). With x the clean picture, L the loss of the
right answer and Pi the projection onto pictures within epsilon of x and between black and white:

    x_0 = Pi(x + uniform noise),   x_(k+1) = Pi(x_k + alpha sign grad L(x_k))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlmend.attacks.climbing import AbstractClimb, Climb, Values, bounds, sound, wide
from vlmend.attacks.tasks import PixelTask, loss_and_gradient
from vlmend.core.contracts import Budget
from vlmend.core.examples import Example
from vlmend.core.targets import Pixels
from vlmend.errors import BadParameter

__all__ = ["ATTACK", "PGD"]

STEP = 2.5
"""Step size unless given, in epsilons over steps: enough to cross the ball and turn (Madry et al.)."""


@dataclass(frozen=True)
class PGD(AbstractClimb):
    """PGD in the largest-change norm, on what the model sees before normalisation.

    Attributes:
        alpha: Size of a step, as a share of black to white; 2.5 epsilon / steps unless given.
    """

    name: ClassVar[str] = "pgd"
    source: ClassVar[str] = "Madry et al., arXiv 1706.06083, ICLR 2018"

    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.alpha is None or self.alpha > 0):
            raise BadParameter(f"alpha={self.alpha} is no size of a step.", "alpha is above 0, such as 1/255 = 0.0039.")

    def climbed(self, task: PixelTask, rows: Sequence[Example], pixels: Pixels, start: Values, budget: Budget) -> Climb:
        """Where the steps lead; the loss there is looked at only to compare restarts."""
        alpha = STEP * budget.epsilon / budget.steps if self.alpha is None else self.alpha
        low, high = bounds(pixels, budget)
        values, dropped = start, torch.zeros(len(rows), dtype=torch.long)
        for _ in range(budget.steps):
            loss, gradient = loss_and_gradient(task, rows, pixels, values)
            fine = sound(loss, gradient)
            step = torch.where(wide(fine), alpha * gradient.sign(), 0.0)
            values = torch.minimum(torch.maximum(values + step, low), high)
            dropped += (step == 0).flatten(1).all(1).cpu()
        if self.restarts == 1:
            return Climb(values, torch.zeros(len(rows)), budget.steps, dropped)
        loss = loss_and_gradient(task, rows, pixels, values)[0].cpu().nan_to_num(-torch.inf)
        return Climb(values, loss, budget.steps + 1, dropped)


ATTACK = PGD
