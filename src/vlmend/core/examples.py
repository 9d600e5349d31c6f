"""Labelled requests and sets of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlmend.core.images import Image

__all__ = ["Dataset", "Example", "Label", "spread"]

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
        answers: Right answers, each enough by itself, for requests that have them.
    """

    id: str
    prompt: str
    label: Label
    group: str = ""
    image: Image | None = None
    caption: str | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Examples with where they come from.

    Attributes:
        notes: What a reader of its numbers must know: rows that are missing, pictures that are not
            there, terms of use. One sentence each.
    """

    name: str
    examples: tuple[Example, ...]
    licence: str = ""
    notes: tuple[str, ...] = ()

    def labelled(self, label: Label) -> tuple[Example, ...]:
        return tuple(example for example in self.examples if example.label == label)

    @property
    def digest_of_words(self) -> str:
        """SHA-256 over ids, prompts, labels, captions and answers; opens no image."""
        rows = [[e.id, e.prompt, e.label, e.caption, *_answers(e)] for e in self.examples]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 over ids, prompts, labels, image bytes and answers."""
        rows = [
            [e.id, e.prompt, e.label, e.image.digest if e.image is not None else None, *_answers(e)]
            for e in self.examples
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def spread(examples: Sequence[Example], most: int | None) -> tuple[Example, ...]:
    """At most that many, evenly spread over their order; all for None."""
    count = len(examples)
    if most is None or most >= count:
        return tuple(examples)
    return tuple(examples[k * count // most] for k in range(most))


def _answers(example: Example) -> list[list[str]]:
    """Nothing for an example without answers, so that their digests are those of older runs."""
    return [list(example.answers)] if example.answers else []
