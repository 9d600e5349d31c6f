"""VLGuard: safety fine-tuning with pictures, as an adapter that can be taken off again.

Zong et al., arXiv 2402.02207 (ICML 2024). Rows in their layout: a harmful request beside an image and a
refusal; a benign request beside the same kind of image and an answer, here the model's own reply to
the words alone. `mixed` adds questions about pictures with the model's own replies. A LoRA adapter on
every linear module of the decoder blocks is trained on the reply tokens (`vlmend.training`):

    y <- W x + up (down x),   up = (lora_alpha / rank) B,  down = A

The mend holds these small matrices. The adapter is trained on a twin (`vlmend.training.twin`), so the model itself is
never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vlmend.core.contracts import AbstractMethod
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, spread
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadParameter
from vlmend.methods.reading import anchors_of
from vlmend.pictures.pool import drawn
from vlmend.training.batches import Row, chosen
from vlmend.training.loop import LoopSettings
from vlmend.training.replies import learn_replies, own_rows
from vlmend.training.twin import Twin, twin_of

__all__ = ["METHOD", "VLGuard", "rows_of", "tuned"]

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "Sorry, I can't assist with this.",
    "I can't help with that, because it could do harm.",
)
QUESTION = "What is in this picture?"


@dataclass(frozen=True)
class VLGuard(AbstractMethod[ChatWeights]):
    """A short safety fine-tuning of a finished model.

    Attributes:
        mode: `post_hoc`: the safety rows alone. `mixed`: one row in three asks what a picture shows.
        steps: Optimiser steps.
        batch: Rows a step.
        rank: Of the adapter; its alpha is twice the rank.
        rate: Peak learning rate.
        most: Anchors at most, half of each label, evenly spread over the data.
    """

    name: ClassVar[str] = "vlguard"
    source: ClassVar[str] = "Zong et al., arXiv 2402.02207, ICML 2024"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "anchor requests, harmful and benign, and the model's replies to them; training"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rank": 2, "rate": 1e-2, "most": 4}
    changes_text: ClassVar[bool] = True

    mode: Literal["post_hoc", "mixed"] = "post_hoc"
    steps: int = 60
    batch: int = 8
    rank: int = 8
    rate: float = 2e-4
    most: int = 200

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train the adapter on a twin of the model.

        Raises:
            BadParameter: Numbers out of range.
            BadData: The data holds no harmful or no benign request.
            MissingExtra: peft is not installed.
        """
        if min(self.steps, self.batch, self.rank, self.most - 1) < 1 or self.rate <= 0:
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, rank={self.rank}, rate={self.rate}, most={self.most} "
                "cannot be.",
                "steps, batch and rank are at least 1, most at least 2, rate is above 0.",
            )
        rows = rows_of(target, data, self.mode, self.most, seed)
        twin = tuned(self, target, rows, seed)
        return self.made(target, data, seed, twin.edits, {})


def rows_of(target: ChatWeights, data: Dataset, mode: Literal["post_hoc", "mixed"], most: int, seed: int) -> list[Row]:
    """Refusals of harmful requests, own replies to benign ones, and, when mixed, to questions about pictures."""
    harmful, benign = (spread(anchors_of(data, label), most // 2) for label in ("harmful", "benign"))
    images = [
        anchor.image if anchor.image is not None else _picture(seed, k) for k, anchor in enumerate([*harmful, *benign])
    ]
    rows = [
        Row(Conversation.ask(anchor.prompt, image), REFUSALS[k % len(REFUSALS)], True)
        for k, (anchor, image) in enumerate(zip(harmful, images, strict=False))
    ]
    asked = [Conversation.ask(a.prompt, image) for a, image in zip(benign, images[len(harmful) :], strict=True)]
    rows += own_rows(target, asked, [Conversation.ask(anchor.prompt) for anchor in benign])
    if mode == "mixed":
        rows += own_rows(target, [Conversation.ask(QUESTION, image) for image in images[::2]])
    return [row for row in rows if row.reply or row.ends]


def tuned(method: VLGuard, target: ChatWeights, rows: Sequence[Row], seed: int) -> Twin:
    """A twin whose adapter is trained on the rows; the batch of a step follows from seed and step."""
    twin = twin_of(target, "decoder", rank=method.rank, seed=seed)

    def rows_of_step(step: int) -> list[Row]:
        return chosen(rows, method.batch, f"vlguard:{seed}:{step}")

    learn_replies(target, twin, rows_of_step, LoopSettings(steps=method.steps, rate=method.rate))
    return twin


def _picture(seed: int, index: int) -> Image:
    """A training picture, for requests that bring no image of their own."""
    thing = drawn("object", "train", seed, index)
    return Image.from_pixels(thing.image, thing.facts["name"])


METHOD = VLGuard
