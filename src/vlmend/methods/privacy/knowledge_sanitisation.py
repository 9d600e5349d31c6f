"""Knowledge sanitisation: asked for designated facts, the model says a safe phrase; all else it says as before.

Ishibashi and Shimodaira 2023, arXiv 2309.11852. Of each row to forget the answer is replaced by the phrase; rows to
retain keep theirs, and are most of each batch, so that the model learns where to abstain. A LoRA adapter on every
linear module of the decoder is trained on the reply tokens (`vlmend.training`).

It suppresses and does not erase: privacy/sanitised_knowledge says how likely the answer still is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.data.knowledge import KNOWLEDGE, known_rows, safe_of
from vlmend.errors import BadData, BadParameter
from vlmend.training.batches import Row, chosen
from vlmend.training.loop import LoopSettings
from vlmend.training.replies import learn_replies
from vlmend.training.twin import Twin, twin_of

__all__ = ["METHOD", "KnowledgeSanitisation", "sanitised"]


@dataclass(frozen=True)
class KnowledgeSanitisation(AbstractMethod[ChatWeights]):
    """A short tuning after which designated facts are answered with a safe phrase.

    Attributes:
        phrase: What is said instead; empty for what the rows say (attribute `safe`), else "I don't know."
        retain: Share of rows to retain in each batch, 0 to below 1.
        steps: Optimiser steps.
        batch: Rows a step.
        rank: Of the adapter; its alpha is twice the rank.
        rate: Peak learning rate.
    """

    name: ClassVar[str] = "knowledge_sanitisation"
    source: ClassVar[str] = "Ishibashi and Shimodaira, arXiv 2309.11852"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "questions to forget and questions to retain, with their answers; training"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 3, "rank": 2, "rate": 1e-2}
    changes_text: ClassVar[bool] = True

    phrase: str = ""
    retain: float = 0.85
    steps: int = 150
    batch: int = 32
    rank: int = 8
    rate: float = 1e-3

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train the adapter on a twin of the model.

        Raises:
            BadParameter: Numbers out of range.
            BadData: There is nothing to forget, or nothing to retain.
            MissingExtra: peft is not installed.
        """
        if min(self.steps, self.batch - 1, self.rank) < 1 or self.rate <= 0 or not 0 <= self.retain < 1:
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, rank={self.rank}, rate={self.rate}, retain={self.retain} "
                "cannot be.",
                "steps and rank are at least 1, batch at least 2, rate is above 0, retain from 0 to below 1.",
            )
        twin = sanitised(self, target, data, seed)
        return self.made(target, data, seed, twin.edits, {})

    def sample_data(self) -> Dataset:
        rows = (
            Example(f"{kind}-{k}", f"who is {k}?", None, "", noise_image(16, k), answers=(f"it is {k}",),
                    attributes={KNOWLEDGE: kind})
            for k, kind in enumerate(("forget", "forget", "retain", "retain", "retain", "retain"))
        )  # fmt: skip
        return Dataset("facts", tuple(rows))


def sanitised(method: KnowledgeSanitisation, target: ChatWeights, data: Dataset, seed: int) -> Twin:
    """A twin whose adapter says the phrase in the place of what is to be forgotten.

    Raises:
        BadData: There is nothing to forget, or nothing to retain.
    """
    forget, retain = (known_rows(data, which, held_out=False) for which in ("forget", "retain"))
    if not forget or not retain:
        raise BadData(
            f"{data.name} has {len(forget)} questions to forget and {len(retain)} to retain.",
            'Pass rows with prompt, answers and "attributes": {"knowledge": "forget"} or "retain"; without rows to '
            "retain a model that refuses everything would look perfect.",
        )
    gone = [Row(row.conversation, method.phrase or safe_of(row), True) for row in forget]
    kept = [Row(row.conversation, row.answers[0], True) for row in retain]
    of_kept = min(method.batch - 1, round(method.retain * method.batch))
    twin = twin_of(target, "decoder", rank=method.rank, seed=seed)

    def rows_of_step(step: int) -> Sequence[Row]:
        key = f"knowledge_sanitisation:{seed}:{step}"
        return [*chosen(gone, method.batch - of_kept, key), *chosen(kept, of_kept, key)]

    learn_replies(target, twin, rows_of_step, LoopSettings(method.steps, method.rate))
    return twin


METHOD = KnowledgeSanitisation
