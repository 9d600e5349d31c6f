"""What goes into a model and what comes out of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from vlmend.core.images import Image

__all__ = ["Conversation", "Reply", "Role", "Sampling", "StopReason", "Turn"]

Role = Literal["system", "user", "assistant"]
StopReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Turn:
    """One message: its images come before its text."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns in order; the last one is the user's."""

    turns: tuple[Turn, ...]

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
        return Conversation(tuple(Turn(turn.role, turn.text) for turn in self.turns))

    @property
    def digest(self) -> str:
        """SHA-256 over roles, words and image bytes."""
        turns = [[t.role, t.text, [image.digest for image in t.images]] for t in self.turns]
        return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


@dataclass(frozen=True)
class Sampling:
    """How to decode: greedy unless a temperature is given.

    Attributes:
        max_new_tokens: Longest reply, in tokens.
        temperature: 0 is greedy.
        seed: Of the draws; without effect when greedy.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
        text: The reply without special tokens.
        stop: `stop` when the model ended it, `length` when it was cut at `max_new_tokens`.
        prompt_tokens: True length of the prompt, image tokens included, padding left out.
        new_tokens: Generated tokens, the end token included.
        seconds: Wall-clock share of the batch, in seconds.
    """

    text: str
    stop: StopReason
    prompt_tokens: int
    new_tokens: int
    seconds: float
