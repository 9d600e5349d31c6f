"""What attacks that climb a loss over pixels share: which rows they want, where a climb begins, which end is kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vlmend.attacks.tasks import PixelTask, task_of
from vlmend.core.contracts import AbstractAttack, Budget, Proposal
from vlmend.core.examples import Dataset, Example
from vlmend.core.targets import Access, ChatGradients, DualGradients, Kind, Pixels
from vlmend.errors import BadParameter

__all__ = ["AbstractClimb", "Climb", "Values", "bounds", "sound", "wide"]

Values = Float[Tensor, "row channel height width"]


@dataclass(frozen=True, eq=False)
class Climb:
    """Where a climb led, row by row.

    Attributes:
        values: Pixels.
        loss: There; minus infinity where it is no finite number.
        passes: Forward and backward passes of each row.
        dropped: Steps that were not made, since loss or gradient was no finite number or the gradient 0 everywhere.
    """

    values: Values
    loss: Float[Tensor, " row"]
    passes: int
    dropped: Int[Tensor, " row"]


@dataclass(frozen=True)
class AbstractClimb(AbstractAttack[DualGradients | ChatGradients, PixelTask]):
    """An attack in the largest-change norm, on what the model sees before normalisation. Subclasses write `climbed`.

    Attributes:
        restarts: Climbs of each row; the end with the largest loss is kept.
        random_start: Begin at a random place within epsilon; without it one climb is all there is.
    """

    works_on: ClassVar[tuple[Kind, ...]] = ("dual", "chat")
    needs: ClassVar[Access] = "gradients"

    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.restarts < 1 or (self.restarts > 1 and not self.random_start):
            raise BadParameter(
                f"restarts={self.restarts}, random_start={self.random_start} is no way to climb.",
                "restarts is 1 or more; without a random start all restarts are alike.",
            )

    @abstractmethod
    def climbed(self, task: PixelTask, rows: Sequence[Example], pixels: Pixels, start: Values, budget: Budget) -> Climb:
        """One climb of each row from its start, within `bounds`."""

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

    @final
    def propose(self, task: PixelTask, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        """The end of the climb with the largest loss, for each row."""
        pixels = task.pixels(rows)
        kept, most, passes = pixels.values, torch.full((len(rows),), -torch.inf), 0
        dropped = torch.zeros(len(rows), dtype=torch.long)
        for restart in range(self.restarts):
            start = self._start(pixels.values, budget, [seed + restart for seed in seeds])
            climb = self.climbed(task, rows, pixels, start, budget)
            better = (climb.loss > most) if restart else torch.ones(len(rows), dtype=torch.bool)
            kept = torch.where(wide(better).to(kept.device), climb.values, kept)
            most, passes, dropped = climb.loss.maximum(most), passes + climb.passes, dropped + climb.dropped
        planes = kept.permute(0, 2, 3, 1).float().cpu().numpy()
        return [Proposal(row, planes[k], passes, passes, int(dropped[k])) for k, row in enumerate(rows)]

    def _start(self, clean: Values, budget: Budget, seeds: Sequence[int]) -> Values:
        if not self.random_start:
            return clean
        noise = [torch.rand(clean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (clean + budget.epsilon * (2 * torch.stack(noise) - 1).to(clean)).clamp(0, 1)


def bounds(pixels: Pixels, budget: Budget) -> tuple[Values, Values]:
    """The least and the largest pixels within epsilon, and between black and white."""
    return (pixels.values - budget.epsilon).clamp_min(0), (pixels.values + budget.epsilon).clamp_max(1)


def sound(loss: Float[Tensor, " row"], gradient: Values) -> Bool[Tensor, " row"]:
    """Rows whose loss and gradient are finite."""
    return loss.isfinite().to(gradient.device) & gradient.isfinite().flatten(1).all(1)


def wide(rows: Tensor) -> Tensor:
    """One value a row, to be held against pixels."""
    return rows[:, None, None, None]
