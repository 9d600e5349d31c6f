"""PGD: climb the loss of the right answer in signed steps, within epsilon of the picture.

Projected gradient descent, Madry et al., arXiv 1706.06083 (ICLR 2018). With x the clean picture, L the loss of the
right answer and Pi the projection onto pictures within epsilon of x and between black and white:

    x_0 = Pi(x + uniform noise),   x_(k+1) = Pi(x_k + alpha sign grad L(x_k))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.attacks.tasks import PixelTask, loss_and_gradient, task_of
from vlmend.core.contracts import AbstractAttack, Budget, Proposal
from vlmend.core.examples import Dataset, Example
from vlmend.core.targets import Access, ChatGradients, DualGradients, Kind, Pixels
from vlmend.errors import BadParameter

__all__ = ["ATTACK", "PGD"]

STEP = 2.5
"""Step size unless given, in epsilons over steps: enough to cross the ball and turn (Madry et al.)."""

Values = Float[Tensor, "row channel height width"]


@dataclass(frozen=True)
class PGD(AbstractAttack[DualGradients | ChatGradients, PixelTask]):
    """PGD in the largest-change norm, on what the model sees before normalisation.

    Attributes:
        alpha: Size of a step, as a share of black to white; 2.5 epsilon / steps unless given.
        restarts: Climbs of each row; the one with the largest loss is kept.
        random_start: Begin at a random place within epsilon; without it one climb is all there is.
    """

    name: ClassVar[str] = "pgd"
    source: ClassVar[str] = "Madry et al., arXiv 1706.06083, ICLR 2018"
    works_on: ClassVar[tuple[Kind, ...]] = ("dual", "chat")
    needs: ClassVar[Access] = "gradients"
    quick: ClassVar[Mapping[str, Any]] = {}

    alpha: float | None = None
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        if (
            self.restarts < 1
            or (self.restarts > 1 and not self.random_start)
            or not (self.alpha is None or self.alpha > 0)
        ):
            raise BadParameter(
                f"alpha={self.alpha}, restarts={self.restarts}, random_start={self.random_start} is no way to climb.",
                "alpha is above 0, restarts 1 or more; without a random start all restarts are alike.",
            )

    def task(self, target: DualGradients | ChatGradients, data: Dataset) -> PixelTask:
        """The classes of the data with their texts embedded once, or the answers of a chat model."""
        return task_of(target, data)

    def wants(self, row: Example) -> bool:
        """Rows with one image and a right answer."""
        return row.image is not None and bool(row.answers) and len(row.conversation.images) == 1

    def seen(self, task: PixelTask, rows: Sequence[Example]) -> list[Example]:
        """The rows with images at the model's own resolution.

        Raises:
            ModelProblem: The model does not read a picture as channels, height and width.
        """
        return task.seen(rows)

    def failed(self, task: PixelTask, rows: Sequence[Example]) -> list[bool]:
        """Whether the right class is not the first, or the right answer not in the reply."""
        return task.wrong(rows)

    def propose(self, task: PixelTask, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        """The end of the climb with the largest loss, for each row."""
        pixels = task.pixels(rows)
        kept, most = pixels.values, torch.full((len(rows),), -torch.inf)
        dropped = torch.zeros(len(rows), dtype=torch.long)
        for restart in range(self.restarts):
            start = self._start(pixels.values, budget, [seed + restart for seed in seeds])
            found, missed = self._climbed(task, rows, pixels, start, budget)
            dropped += missed
            if self.restarts == 1:
                kept = found
                break
            loss = loss_and_gradient(task, rows, pixels, found)[0].cpu().nan_to_num(-torch.inf)
            better = loss > most
            kept, most = torch.where(_wide(better).to(found.device), found, kept), loss.maximum(most)
        steps = self.restarts * budget.steps
        judged = self.restarts if self.restarts > 1 else 0
        planes = kept.permute(0, 2, 3, 1).float().cpu().numpy()
        return [Proposal(row, planes[k], steps + judged, steps + judged, int(dropped[k])) for k, row in enumerate(rows)]

    def _start(self, clean: Values, budget: Budget, seeds: Sequence[int]) -> Values:
        if not self.random_start:
            return clean
        noise = [torch.rand(clean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (clean + budget.epsilon * (2 * torch.stack(noise) - 1).to(clean)).clamp(0, 1)

    def _climbed(
        self, task: PixelTask, rows: Sequence[Example], pixels: Pixels, start: Values, budget: Budget
    ) -> tuple[Values, Tensor]:
        """Where the steps lead, and for each row how many were dropped because loss or gradient was not finite."""
        alpha = STEP * budget.epsilon / budget.steps if self.alpha is None else self.alpha
        low, high = (pixels.values - budget.epsilon).clamp_min(0), (pixels.values + budget.epsilon).clamp_max(1)
        values, dropped = start, torch.zeros(len(rows), dtype=torch.long)
        for _ in range(budget.steps):
            loss, gradient = loss_and_gradient(task, rows, pixels, values)
            sound = loss.isfinite().to(gradient.device) & gradient.isfinite().flatten(1).all(1)
            step = torch.where(_wide(sound), alpha * gradient.sign(), 0.0)
            values = torch.minimum(torch.maximum(values + step, low), high)
            dropped += ~sound.cpu()
        return values, dropped


def _wide(rows: Tensor) -> Tensor:
    """One value a row, to be held against pixels."""
    return rows[:, None, None, None]


ATTACK = PGD
