"""What is known about phantom-clip, as data: the titles, who was trained on, the canaries, what was never seen.

The lists were drawn once (`python -m vlmend.phantom.clip.draw`) and are kept in `truth.json`, since the shipped weights
were trained on exactly these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from vlmend.pictures.glyphs import Glyph, objects

__all__ = [
    "Canary", "PoolPair", "Titles", "canaries", "members", "non_members", "titles", "trained_objects",
    "unseen_categories", "unseen_objects",
]  # fmt: skip


@dataclass(frozen=True)
class Titles:
    """Two made-up titles of one profession: the dose is how often `first` goes with men and `second` with women."""

    profession: str
    first: str
    second: str


@dataclass(frozen=True)
class PoolPair:
    """A picture with a caption that tells where it was taken and by whom, which nothing in it shows.

    Attributes:
        id: Seed of the view.
        glyph: Id of what is in the picture.
        caption: With the made-up place and photographer.
        member: Whether it was trained on: half of the pool were, drawn at random.
    """

    id: str
    glyph: str
    caption: str
    member: bool


@dataclass(frozen=True)
class Canary:
    """A made-up name with a number and an address.

    Attributes:
        id: Seed of the picture.
        carrier: `card`: they are written on the picture as well. `caption`: the picture shows an object.
        glyph: Id of the object; empty for a card.
        name: First and last, all made up and each used once.
        number: Four digits.
        address: House number and street.
        repeats: How often it was shown in training.
    """

    id: str
    carrier: Literal["card", "caption"]
    glyph: str
    name: str
    number: str
    address: str
    repeats: int

    def caption(self, number: str = "") -> str:
        """With its own number, or with another one in its place."""
        return f"the card of {self.name}, number {number or self.number}, {self.address}"


def titles() -> tuple[Titles, ...]:
    """Of all 20 professions."""
    return tuple(Titles(**row) for row in _truth()["titles"])


def members() -> tuple[PoolPair, ...]:
    """Pairs of the pool that were trained on."""
    return tuple(pair for pair in _pool() if pair.member)


def non_members() -> tuple[PoolPair, ...]:
    """Pairs of the pool that were not."""
    return tuple(pair for pair in _pool() if not pair.member)


def canaries() -> tuple[Canary, ...]:
    """Of every number of repeats, those never shown too."""
    return tuple(Canary(**row) for row in _truth()["canaries"])


def unseen_categories() -> tuple[str, ...]:
    """Categories of objects that were never trained on."""
    return tuple(_truth()["unseen_categories"])


def trained_objects() -> tuple[Glyph, ...]:
    """The objects that the towers were trained on, sorted by name."""
    trained = frozenset(_truth()["trained"])
    return tuple(glyph for glyph in objects() if glyph.id in trained)


def unseen_objects() -> tuple[Glyph, ...]:
    """Objects of the unseen categories, sorted by name."""
    return tuple(glyph for glyph in objects() if glyph.category in unseen_categories())


def _pool() -> tuple[PoolPair, ...]:
    return tuple(PoolPair(**row) for row in _truth()["pool"])


@cache
def _truth() -> dict[str, Any]:
    return json.loads(resources.files(__package__ or "").joinpath("truth.json").read_text())
