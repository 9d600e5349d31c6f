"""Requests, pictures and rows of any kind, and sets of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from vlmend.core.conversation import Conversation, Turn
from vlmend.core.images import Image
from vlmend.errors import BadData, SampleError

__all__ = ["REQUEST", "Dataset", "Example", "Label", "class_names", "spread", "undecoded"]

Label = Literal["harmful", "benign"]
Item = TypeVar("Item")

REQUEST = "request"
"""The attribute that says what a row asks for, where an attack or a template put other words around it."""

GROUPS_BY = "groups_by"
"""The attribute that says who told the groups of people: they themselves, annotators, or a model."""

INFERRED, ACCEPTED = "model", "model, accepted"
"""Values of it: groups that a model inferred, and the same where the user takes them all the same."""

UNREADABLE = "unreadable"
"""What stands for an image in a digest whose file is missing or cannot be read."""


@dataclass(frozen=True)
class Example:
    """One row: a request, a picture with its caption, or both.

    Attributes:
        id: Unique within its data set; runs are paired by it.
        prompt: What is asked; empty for rows that ask nothing.
        label: harmful: a trustworthy model declines. benign: it answers. None: that is no question here.
        group: Topic, kind or attribute group, for tables by group.
        image: The image that belongs to the row, if any.
        caption: What the image shows, in words, if known.
        answers: Right answers or class names, each enough by itself.
        attributes: What else is known of it, by name: group attributes, cluster, how an attack made it.
        more_images: Further images of the last turn, after `image`.
        turns: What was said before the prompt: a system turn, earlier questions and replies.
    """

    id: str
    prompt: str = ""
    label: Label | None = None
    group: str = ""
    image: Image | None = None
    caption: str | None = None
    answers: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    more_images: tuple[Image, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def request(self) -> str:
        """What is wanted: the prompt, or what stood in its place before it was attacked."""
        return self.attributes.get(REQUEST) or self.prompt

    @property
    def every_image(self) -> tuple[Image, ...]:
        """Every image of the last turn, then those of earlier ones."""
        return (*self.images, *(image for turn in self.turns for image in turn.images))

    @property
    def images(self) -> tuple[Image, ...]:
        """Every image of the last turn."""
        return (*(() if self.image is None else (self.image,)), *self.more_images)

    @property
    def conversation(self) -> Conversation:
        """The row as it is asked: the earlier turns, then the prompt beside its images."""
        return Conversation((*self.turns, Turn("user", self.prompt, self.images)))


@dataclass(frozen=True)
class Dataset:
    """Examples with where they come from.

    Attributes:
        notes: What a reader of its numbers must know: rows that are missing, pictures that are not
            there, terms of use. One sentence each.
        test_only: Its authors forbid fitting on it; `AbstractMethod.fit` refuses.
    """

    name: str
    examples: tuple[Example, ...]
    licence: str = ""
    notes: tuple[str, ...] = ()
    test_only: bool = False

    def __post_init__(self) -> None:
        doubled = [name for name, count in Counter(example.id for example in self.examples).items() if count > 1]
        if doubled:
            raise BadData(
                f"{self.name} has {len(doubled)} ids that occur twice (first: {doubled[0]}).",
                "Give each row an id of its own: runs are paired by it.",
            )

    def labelled(self, label: Label) -> tuple[Example, ...]:
        """The rows of one label."""
        return tuple(example for example in self.examples if example.label == label)

    @property
    def digest_of_words(self) -> str:
        """SHA-256 over every field of every row but the images, which are not opened."""
        return _digest(_words(example) for example in self.examples)

    @property
    def digest(self) -> str:
        """SHA-256 over every field of every row, image bytes included; an image that cannot be read counts as such."""
        return _digest([*_words(example), *map(_image, example.every_image)] for example in self.examples)


def class_names(data: Dataset) -> tuple[str, ...]:
    """The distinct first answers, sorted.

    Raises:
        BadData: There are fewer than two.
    """
    names = tuple(sorted({row.answers[0] for row in data.examples if row.answers}))
    if len(names) < 2:
        raise BadData(
            f"{data.name} names {len(names)} classes, so nothing can be taken for another.",
            "Pass rows of two classes or more; a row's first answer is its class.",
        )
    return names


def spread(examples: Sequence[Item], most: int | None) -> tuple[Item, ...]:
    """At most that many, evenly spread over their order; all for None."""
    count = len(examples)
    if most is None or most >= count:
        return tuple(examples)
    return tuple(examples[k * count // most] for k in range(most))


def undecoded(example: Example) -> str:
    """Why an image of an example cannot be decoded; "" where all can."""
    try:
        for image in example.images:
            image.decode()
    except SampleError as problem:
        return problem.message
    return ""


def _words(example: Example) -> list[object]:
    turns = [[turn.role, turn.text, len(turn.images)] for turn in example.turns]
    return [
        example.id, example.prompt, example.label, example.group, example.caption, list(example.answers),
        sorted(example.attributes.items()), turns, example.image is not None, len(example.more_images),
    ]  # fmt: skip


def _image(image: Image) -> str:
    try:
        return image.digest
    except SampleError:
        return UNREADABLE


def _digest(rows: Iterable[object]) -> str:
    """SHA-256 of the rows as one JSON list, which is not held."""
    found = hashlib.sha256(b"[")
    for k, row in enumerate(rows):
        found.update(f"{', ' if k else ''}{json.dumps(row)}".encode())
    found.update(b"]")
    return found.hexdigest()
