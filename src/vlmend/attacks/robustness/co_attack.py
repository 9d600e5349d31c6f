"""co_attack: words and picture together, each knowing what the other does.

Co-Attack, Zhang, Yi and Sang, arXiv 2206.09391 (ACM Multimedia 2022): first the words are changed, beside the clean
picture, then the picture is changed against the new words. Here words change as in `text_swap`, pixels as in `pgd`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vlmend.attacks.robustness.pgd import PGD
from vlmend.attacks.robustness.text_swap import swapped
from vlmend.attacks.tasks import PixelTask, task_of
from vlmend.attacks.wording import WordTask, at_random, words_of
from vlmend.core.attacks import random_signs
from vlmend.core.contracts import AbstractAttack, Budget, Proposal
from vlmend.core.examples import Dataset, Example
from vlmend.core.targets import Access, ChatGradients, DualGradients, Kind
from vlmend.errors import BadParameter

__all__ = ["ATTACK", "Both", "CoAttack"]


@dataclass(frozen=True, eq=False)
class Both:
    """One target as attacks on pixels and on words see it."""

    pixels: PixelTask
    words: WordTask


@dataclass(frozen=True)
class CoAttack(AbstractAttack[DualGradients | ChatGradients, Both]):
    """Words as `text_swap`, then pixels as `pgd`.

    Attributes:
        words: How many words may change.
        together: The picture is changed against the new words; else against the old ones, which is each attack by
            itself (the ablation).
    """

    name: ClassVar[str] = "co_attack"
    source: ClassVar[str] = "Zhang, Yi and Sang, arXiv 2206.09391, ACM Multimedia 2022"
    works_on: ClassVar[tuple[Kind, ...]] = ("dual", "chat")
    needs: ClassVar[Access] = "gradients"
    quick: ClassVar[Mapping[str, Any]] = {"words": 1}

    words: int = 2
    together: bool = True

    def __post_init__(self) -> None:
        if self.words < 1:
            raise BadParameter(
                f"words={self.words} changes none.", "words is 1 or more; pgd changes the picture alone."
            )

    @property
    def words_allowed(self) -> int:
        """Words of a row that may differ."""
        return self.words

    def task(self, target: DualGradients | ChatGradients, data: Dataset) -> Both:
        """The classes of the data, or the questions of a chat model."""
        return Both(task_of(target, data, worded=True), words_of(target, data))

    def wants(self, row: Example) -> bool:
        """Rows with one image and a right answer."""
        return PGD().wants(row)

    def seen(self, task: Both, rows: Sequence[Example]) -> list[Example]:
        """The rows with images at the model's own resolution, and their words as the prompt."""
        return [task.words.worded(row) for row in task.pixels.seen(rows)]

    def failed(self, task: Both, rows: Sequence[Example]) -> list[bool]:
        """Whether the right class is not the first, or the right answer not in the reply."""
        return task.pixels.wrong(rows)

    def control(self, task: Both, row: Example, budget: Budget, seed: int) -> Example:
        """Random signs on the picture and as many words changed at random."""
        return replace(random_signs(row, budget, seed), prompt=at_random(row.prompt, self.words, seed))

    def propose(self, task: Both, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        """New words, then new pixels."""
        said = [swapped(task.words, row, self.words, budget.steps, seed) for row, seed in zip(rows, seeds, strict=True)]
        against = [one.row for one in said] if self.together else rows
        drawn = PGD().propose(task.pixels, against, budget, seeds)
        return [
            Proposal(a.row, b.pixels, a.forward + b.forward, b.backward, a.dropped + b.dropped)
            for a, b in zip(said, drawn, strict=True)
        ]


ATTACK = CoAttack
