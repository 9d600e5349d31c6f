"""Labelled requests and sets of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from vlmend.core.images import Image

__all__ = ["Dataset", "Example", "Label"]

Label = Literal["harmful", "benign"]


@dataclass(frozen=True)
class Example:
    """One request.

    Attributes:
        id: Unique within its data set; runs are paired by it.
        prompt: What is asked.
        label: harmful: a trustworthy model declines. benign: it answers.
        group: Topic or kind, for tables by group.
        image: The image that belongs to the request, if any.
        caption: What the image shows, in words, if known.
    """

    id: str
    prompt: str
    label: Label
    group: str = ""
    image: Image | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Examples with where they come from."""

    name: str
    examples: tuple[Example, ...]
    licence: str = ""

    def labelled(self, label: Label) -> tuple[Example, ...]:
        return tuple(example for example in self.examples if example.label == label)

    @property
    def digest_of_words(self) -> str:
        """SHA-256 over ids, prompts, labels and captions; opens no image."""
        rows = [[e.id, e.prompt, e.label, e.caption] for e in self.examples]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 over ids, prompts, labels and image bytes."""
        rows = [[e.id, e.prompt, e.label, e.image.digest if e.image is not None else None] for e in self.examples]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
