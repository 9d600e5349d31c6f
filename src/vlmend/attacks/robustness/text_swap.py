"""text_swap: change a few words so that people read the same and the model no longer does.

Greedy word substitution, as TextBugger (Li et al., arXiv 1812.05271, NDSS 2019) and TextFooler (Jin et al., arXiv
1907.11932, AAAI 2020): of the one-word changes that are tried, the one that raises the loss of the right answer most is
made, and so on within the budget. With L that loss and V(t) the texts that differ from t in one word as yet unchanged:

    t_0 = t,   t_(k+1) = argmax over u in V(t_k) of L(u), as long as L grows
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vlmend.attacks.wording import WordTask, at_random, variants, words_of
from vlmend.core.contracts import AbstractAttack, Budget, Proposal
from vlmend.core.examples import Dataset, Example
from vlmend.core.targets import Access, ChatLikelihoods, DualTarget, Kind
from vlmend.errors import BadParameter

__all__ = ["ATTACK", "TextSwap", "swapped"]


@dataclass(frozen=True)
class TextSwap(AbstractAttack[DualTarget | ChatLikelihoods, WordTask]):
    """Words of the question, or of the text of a class, swapped for synonyms and slips of the keyboard.

    Attributes:
        words: How many may change.
    """

    name: ClassVar[str] = "text_swap"
    source: ClassVar[str] = "Li et al., arXiv 1812.05271, NDSS 2019; Jin et al., arXiv 1907.11932, AAAI 2020"
    works_on: ClassVar[tuple[Kind, ...]] = ("dual", "chat")
    needs: ClassVar[Access] = "likelihoods"
    quick: ClassVar[Mapping[str, Any]] = {"words": 1}

    words: int = 2

    def __post_init__(self) -> None:
        if self.words < 1:
            raise BadParameter(f"words={self.words} changes nothing.", "words is 1 or more.")

    @property
    def words_allowed(self) -> int:
        """Words of a row that may differ."""
        return self.words

    def task(self, target: DualTarget | ChatLikelihoods, data: Dataset) -> WordTask:
        """The classes of the data, or the questions of a chat model."""
        return words_of(target, data)

    def wants(self, row: Example) -> bool:
        """Rows with a right answer and something to ask or to name."""
        return bool(row.answers) and (row.image is not None or bool(row.prompt))

    def seen(self, task: WordTask, rows: Sequence[Example]) -> list[Example]:
        """The rows with their words as the prompt."""
        return [task.worded(row) for row in rows]

    def failed(self, task: WordTask, rows: Sequence[Example]) -> list[bool]:
        """Whether the right class is not the first, or the right answer not in the reply."""
        return task.wrong(rows)

    def control(self, task: WordTask, row: Example, budget: Budget, seed: int) -> Example:
        """As many words changed at random."""
        return replace(row, prompt=at_random(row.prompt, self.words, seed))

    def propose(self, task: WordTask, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        """The words with the largest loss that were met, for each row."""
        return [swapped(task, row, self.words, budget.steps, seed) for row, seed in zip(rows, seeds, strict=True)]


def swapped(task: WordTask, row: Example, words: int, tries: int, seed: int) -> Proposal:
    """A row with at most so many words changed for a larger loss.

    Args:
        task: What is attacked.
        row: With its words as the prompt.
        words: How many may change.
        tries: Changes that are looked at, shared among the words.
        seed: Of which are looked at where there are more.
    """
    rng, best, passes, dropped = random.Random(seed), row.prompt, 0, 0
    (most,) = task.losses(row, [best])
    for left in range(words, 0, -1):
        tried = variants(best, row.prompt)
        tried = rng.sample(tried, min(len(tried), (tries - passes) // left))
        if not tried:
            break
        losses = task.losses(row, tried)
        passes += len(tried)
        finite = [(loss, text) for loss, text in zip(losses, tried, strict=True) if loss - loss == 0]
        dropped += len(tried) - len(finite)
        loss, text = max(finite, default=(most, best))
        if loss <= most:
            break
        most, best = loss, text
    return Proposal(replace(row, prompt=best), None, passes + 1, 0, dropped)


ATTACK = TextSwap
