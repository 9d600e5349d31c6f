"""What goes into a model and what comes out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlmend.core.images import Image

__all__ = ["Conversation", "Reply", "Role", "Sampling", "StopReason", "Turn"]

Role = Literal["system", "user", "assistant"]
StopReason = Literal["stop", "length", "filtered"]
"""filtered: a filter of its provider left no reply."""


@dataclass(frozen=True)
class Turn:
    """One message: its images come before its text."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns in order; the last one is the user's.

    Attributes:
        turns: The messages.
        lead: Words that the reply begins with, put into the model's mouth.
    """

    turns: tuple[Turn, ...]
    lead: str = ""

    @classmethod
    def ask(cls, prompt: str, image: Image | None = None) -> Conversation:
        """A single user turn, with or without an image."""
        return cls((Turn("user", prompt, () if image is None else (image,)),))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(image for turn in self.turns for image in turn.images)

    @property
    def has_image(self) -> bool:
        return any(turn.images for turn in self.turns)

    def without_images(self) -> Conversation:
        """The same words with no image at all: what CMRM calls the text-only request."""
        return Conversation(tuple(Turn(turn.role, turn.text) for turn in self.turns), self.lead)

    def with_images(self, image: Image) -> Conversation:
        """The same words with this image in the place of each of its images."""
        return self.through(lambda _: image)

    def through(self, change: Callable[[Image], Image]) -> Conversation:
        """The same words with what becomes of each image in its place."""
        turns = (Turn(turn.role, turn.text, tuple(map(change, turn.images))) for turn in self.turns)
        return Conversation(tuple(turns), self.lead)

    def rewritten(self, before: str = "", after: str = "", system: str = "") -> Conversation:
        """With words before and after the last turn's, and a system turn in front."""
        *earlier, last = self.turns
        front = (Turn("system", system),) if system else ()
        return Conversation((*front, *earlier, Turn(last.role, before + last.text + after, last.images)), self.lead)

    def with_words(self, words: str) -> Conversation:
        """Other words in the last turn, in the place of its own and of the lead."""
        *earlier, last = self.turns
        return Conversation((*earlier, Turn(last.role, words, last.images)))

    @property
    def prompt(self) -> str:
        """The words of the last turn."""
        return self.turns[-1].text

    @property
    def digest(self) -> str:
        """SHA-256 over roles, words, image bytes and lead."""
        turns: list[object] = [[t.role, t.text, [image.digest for image in t.images]] for t in self.turns]
        turns += [self.lead] if self.lead else []
        return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


@dataclass(frozen=True)
class Sampling:
    """How to decode: greedy unless a temperature is given.

    Attributes:
        max_new_tokens: Longest reply, in tokens.
        temperature: 0 is greedy.
        seed: Of the draws; without effect when greedy.
        least: Shortest reply, in tokens: the end token is held back until then. For timing.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    least: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply.

    Attributes:
        text: The reply without special tokens.
        stop: `stop` when the model ended it, `length` when it was cut at `max_new_tokens`.
        prompt_tokens: True length of the prompt, image tokens included, padding left out.
        new_tokens: Generated tokens, the end token included.
        seconds: Wall-clock share of the batch, in seconds.
        fired: How often mends edited this request's states, by site: the proof of fire.
    """

    text: str
    stop: StopReason
    prompt_tokens: int
    new_tokens: int
    seconds: float
    fired: Mapping[str, int] = field(default_factory=dict[str, int])
