"""Edits that put examples before a request: the same ones before each, or those that are most like it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlmend.core.conversation import Conversation, Turn
from vlmend.core.images import Image
from vlmend.core.sites import Site
from vlmend.core.state_edits import Touch, When
from vlmend.errors import BadParameter

__all__ = ["ShowExamples", "ShowNearest", "alike"]


@dataclass(frozen=True)
class ShowExamples:
    """Earlier turns that show how it is done: a question, its picture and the right reply, again and again.

    They stand behind a system turn and before all others. One with the request's own picture is left out. Any strength
    other than 0 is on.

    Attributes:
        prompts, replies: One of each for every example.
        images: Likewise, or none at all where the examples are words.
    """

    prompts: tuple[str, ...]
    replies: tuple[str, ...]
    images: tuple[Image, ...] = ()
    strength: float = 1.0
    when: When = "with_image"

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.replies) or len(self.images) not in (0, len(self.prompts)):
            raise BadParameter(
                f"{len(self.prompts)} questions, {len(self.replies)} replies and {len(self.images)} pictures make no "
                "examples.",
                "Give one of each for every example, or no pictures.",
            )

    def put(self, conversation: Conversation) -> Conversation:
        """A request behind the examples, where they are meant for it."""
        if self.when == "with_image" and not conversation.has_image:
            return conversation
        asked = {image.digest for image in conversation.images}
        shown: list[Turn] = []
        for place, (prompt, reply) in enumerate(zip(self.prompts, self.replies, strict=True)):
            images = self.images[place : place + 1]
            if not asked.intersection(image.digest for image in images):
                shown += [Turn("user", prompt, images), Turn("assistant", reply)]
        front = int(conversation.turns[0].role == "system")
        turns = (*conversation.turns[:front], *shown, *conversation.turns[front:])
        return Conversation(turns, conversation.lead)

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"prompt", "image"})

    def scaled(self, factor: float) -> ShowExamples:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class ShowNearest:
    """What was said of the pictures that are most like the request's, in words, before the request.

    The model is asked to describe the request's picture. `near` examples are nearest by the cosine of its states; of
    them those `keep` are shown whose captions are most like its caption, the most alike last. One with a picture of the
    request is left out. Any strength other than 0 is on.

    Attributes:
        site: Where states are read.
        states: Of each example's picture, read the same way.
        captions: What the model says of each.
        digests: Of each picture.
        told: The words that stand before a request for which an example is chosen.
        ask: How a description is asked for.
        intent: Words before all examples.
        choice: `random`: `keep` examples drawn by seed and picture, whatever they show.
        seed: Of these draws.
    """

    site: Site
    states: Float[Tensor, "row width"]
    captions: tuple[str, ...]
    digests: tuple[str, ...]
    told: tuple[str, ...]
    ask: str
    near: int
    keep: int
    intent: str = ""
    choice: Literal["likeness", "random"] = "likeness"
    seed: int = 0
    strength: float = 1.0
    when: When = "with_image"

    def __post_init__(self) -> None:
        counts = {len(self.states), len(self.captions), len(self.digests), len(self.told)}
        if len(counts) != 1 or not 1 <= self.keep <= self.near:
            raise BadParameter(
                f"{len(self.states)} states, {len(self.captions)} captions, {len(self.digests)} pictures and "
                f"{len(self.told)} texts, of which {self.keep} of {self.near} are to be shown, make no examples.",
                "Give one of each for every example, and show 1 or more, at most as many as are near.",
            )

    def chosen(self, state: Float[Tensor, " width"], caption: str, digests: Collection[str]) -> tuple[int, ...]:
        """Which examples are shown, in the order in which they stand.

        Args:
            state: Of the request's picture.
            caption: What the model says of it.
            digests: Of the request's pictures.
        """
        others = [row for row, digest in enumerate(self.digests) if digest not in digests]
        if self.choice == "random":
            drawn = random.Random(f"nearest:{self.seed}:{'+'.join(sorted(digests))}")
            return tuple(drawn.sample(others, min(self.keep, len(others))))
        likeness = cosine_similarity(self.states[others], state.to(self.states)[None])
        near = [others[place] for place in likeness.argsort(descending=True, stable=True)[: self.near].tolist()]
        near.sort(key=lambda row: -alike(caption, self.captions[row]))
        return tuple(reversed(near[: self.keep]))

    def put(self, conversation: Conversation, rows: Sequence[int]) -> Conversation:
        """The request behind these examples."""
        return (
            conversation.rewritten(before=self.intent + "".join(self.told[row] for row in rows))
            if rows
            else conversation
        )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"prompt", "reply"})

    def scaled(self, factor: float) -> ShowNearest:
        return replace(self, strength=self.strength * factor)


def alike(one: str, other: str) -> float:
    """How many words two texts share, by the cosine of their counts, 0 to 1."""
    counts = [Counter(re.findall(r"\w+", text.lower())) for text in (one, other)]
    sizes = [sum(count * count for count in held.values()) ** 0.5 for held in counts]
    shared = sum(counts[0][word] * counts[1][word] for word in counts[0])
    return shared / (sizes[0] * sizes[1]) if shared else 0.0
