"""glare: every pixel brighter by epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vlmend.core.attacks import AbstractAttack, Budget, Proposal
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.targets import Access, DualTarget, Kind

__all__ = ["ATTACK", "Glare"]


@dataclass(frozen=True)
class Naming:
    """A model and the names among which it chooses."""

    target: DualTarget
    names: tuple[str, ...]


@dataclass(frozen=True)
class Glare(AbstractAttack[DualTarget, Naming]):
    """Needs no gradient."""

    name: ClassVar[str] = "glare"
    source: ClassVar[str] = "the sun"
    works_on: ClassVar[tuple[Kind, ...]] = ("dual",)
    needs: ClassVar[Access] = "embeddings"

    def task(self, target: DualTarget, data: Dataset) -> Naming:
        return Naming(target, tuple(sorted({row.answers[0] for row in data.examples if row.answers})))

    def propose(self, task: Naming, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        seen = [np.asarray(image.decode(), np.float32) / 255 for image in _images(rows)]
        return [Proposal(row, values + np.float32(budget.epsilon)) for row, values in zip(rows, seen, strict=True)]

    def failed(self, task: Naming, rows: Sequence[Example]) -> list[bool]:
        said = task.target.logits(_images(rows), task.names).argmax(1).tolist()
        return [task.names[place] != row.answers[0] for place, row in zip(said, rows, strict=True)]


def _images(rows: Sequence[Example]) -> list[Image]:
    return [row.image for row in rows if row.image is not None]


ATTACK = Glare
