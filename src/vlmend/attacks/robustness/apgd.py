"""APGD: PGD that halves its own steps when they stop paying, and goes on from the best place so far.

Croce and Hein, arXiv 2003.01690 (ICML 2020), algorithm 1, with the cross-entropy. With eta the step size of a row, at
first 2 epsilon, Pi the projection and a = 0.75:

    z = Pi(x_k + eta sign grad L(x_k)),   x_(k+1) = Pi(x_k + a (z - x_k) + (1 - a) (x_k - x_(k-1)))

At checkpoints eta is halved, and the climb goes on from the best place, where fewer than 75 % of the steps since the
last one raised the loss, or where neither eta nor the best loss has moved since then. The best place is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vlmend.attacks.climbing import AbstractClimb, Climb, Values, bounds, sound, wide
from vlmend.attacks.tasks import PixelTask, loss_and_gradient
from vlmend.core.contracts import Budget
from vlmend.core.examples import Example
from vlmend.core.targets import Pixels

__all__ = ["APGD", "ATTACK", "checkpoints"]

FIRST_STEP = 2.0
"""In epsilons."""
NEW = 0.75
"""Weight of the new direction against the last one."""
PAYING = 0.75
"""Share of steps that must raise the loss for the step size to stay."""


@dataclass(frozen=True)
class APGD(AbstractClimb):
    """APGD with the cross-entropy, in the largest-change norm, on what the model sees before normalisation."""

    name: ClassVar[str] = "apgd"
    source: ClassVar[str] = "Croce and Hein, arXiv 2003.01690, ICML 2020"

    def climbed(self, task: PixelTask, rows: Sequence[Example], pixels: Pixels, start: Values, budget: Budget) -> Climb:
        """The place with the largest loss that was met."""
        low, high = bounds(pixels, budget)
        here = best = _looked(task, rows, pixels, start)
        before, dropped = start, torch.zeros(len(rows), dtype=torch.long)
        eta = torch.full_like(here.loss, FIRST_STEP * budget.epsilon)
        pace = _Pace(0, torch.zeros_like(here.loss), best.loss, torch.ones_like(here.sound))
        for k in range(1, budget.steps + 1):
            aim = (here.values + wide(eta) * here.gradient.sign()).clamp(low, high)
            new = NEW if k > 1 else 1.0
            onward = here.values + new * (aim - here.values) + (1 - new) * (here.values - before)
            found = _looked(task, rows, pixels, onward.clamp(low, high))
            dropped += (found.gradient == 0).flatten(1).all(1).cpu()
            raised = pace.raised + (found.loss > here.loss)
            best, back = best.where(found.loss <= best.loss, found), ~found.sound
            pace = replace(pace, raised=raised)
            if k in checkpoints(budget.steps):
                halved = (raised < PAYING * (k - pace.since)) | (~pace.halved & (best.loss <= pace.most))
                eta, back = torch.where(halved, eta / 2, eta), back | halved
                pace = _Pace(k, torch.zeros_like(raised), best.loss, halved)
            before, here = here.values, best.where(back, found)
        return Climb(best.values, best.loss.cpu(), budget.steps + 1, dropped)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where each row is: pixels, the loss and its gradient there, and whether both are finite.

    Where they are not, the loss is minus infinity and the gradient nothing.
    """

    values: Values
    loss: Float[Tensor, " row"]
    gradient: Values
    sound: Bool[Tensor, " row"]

    def where(self, here: Bool[Tensor, " row"], other: _Place) -> _Place:
        """This place for some rows, another for the rest."""
        return _Place(
            torch.where(wide(here), self.values, other.values), torch.where(here, self.loss, other.loss),
            torch.where(wide(here), self.gradient, other.gradient), torch.where(here, self.sound, other.sound),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Pace:
    """What has come since the last checkpoint, row by row.

    Attributes:
        since: The step of the checkpoint.
        raised: Steps since then that raised the loss.
        most: The largest loss by then.
        halved: Whether the step size was halved there.
    """

    since: int
    raised: Float[Tensor, " row"]
    most: Float[Tensor, " row"]
    halved: Bool[Tensor, " row"]


def checkpoints(steps: int) -> tuple[int, ...]:
    """After which steps the step sizes are looked at: 0.22 of them, then ever closer, at the closest 0.06 apart.

    Of 100: 22, 41, 57, 70, 80, 87, 93 and 99, as in the paper.
    """
    found: list[int] = []
    before, at = 0.0, 0.22
    while at <= 1:
        found.append(math.ceil(round(at * steps, 9)))
        before, at = at, at + max(at - before - 0.03, 0.06)
    return tuple(dict.fromkeys(found))


def _looked(task: PixelTask, rows: Sequence[Example], pixels: Pixels, values: Values) -> _Place:
    loss, gradient = loss_and_gradient(task, rows, pixels, values)
    fine = sound(loss, gradient)
    return _Place(
        values, torch.where(fine, loss.to(fine.device), -torch.inf), torch.where(wide(fine), gradient, 0.0), fine
    )


ATTACK = APGD
