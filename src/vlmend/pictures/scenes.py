"""Drawn scenes: one to three groups of coloured shapes, a caption of what is there, and questions with answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from vlmend.pictures.views import SIDE, Colour, Shift, fitted_turn, plain_colour, shown

__all__ = [
    "COLOURS",
    "NUMBERS",
    "ROWS",
    "SHAPES",
    "Place",
    "Question",
    "Scene",
    "Thing",
    "drawn_scene",
    "many",
    "scene",
]

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40), "green": (46, 139, 60), "blue": (40, 80, 200), "yellow": (245, 205, 40),
    "purple": (128, 50, 160), "orange": (245, 130, 30), "brown": (120, 75, 40), "pink": (245, 130, 180),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
NUMBERS = ("zero", "one", "two", "three", "four")
ROWS = 3
"""The shapes stand on a grid of 3 x 3 cells, so that none covers another."""

CONTRAST = 160
"""Least distance of a shape's colour and the ground: the sum over red, green and blue, of 765."""
FINE = 4
"""Shapes are drawn in four times the size and made smaller, for smooth edges."""


@dataclass(frozen=True)
class Place:
    """Where one shape is, in pixels of the 72 x 72 picture."""

    x: int
    y: int
    radius: int


@dataclass(frozen=True)
class Thing:
    """Shapes of one kind; no other group of the scene has both this shape and this colour."""

    colour: str
    shape: str
    places: tuple[Place, ...]

    @property
    def count(self) -> int:
        return len(self.places)

    def named(self) -> str:
        """As a caption has it: "two red circles"."""
        return f"{NUMBERS[self.count]} {self.colour} {many(self.shape) if self.count > 1 else self.shape}"


@dataclass(frozen=True)
class Question:
    """A question about a scene and its one right answer.

    Attributes:
        kind: What is asked for.
        text: The question.
        subject: What it asks about: "red circle".
        answer: "yes" or "no", a number as a word, a colour.
    """

    kind: Literal["presence", "count", "colour"]
    text: str
    subject: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """What is in a picture of shapes."""

    things: tuple[Thing, ...]

    def caption(self) -> str:
        """In words: "two red circles, one blue square and three green rings"."""
        *first, last = [thing.named() for thing in self.things]
        return f"{', '.join(first)} and {last}" if first else last

    def by_shape(self) -> Scene:
        """The same with its groups in an order that the picture alone fixes: of `SHAPES`, then of colours' names."""
        return Scene(tuple(sorted(self.things, key=lambda thing: (SHAPES.index(thing.shape), thing.colour))))

    def questions(self) -> tuple[Question, ...]:
        """All counts and unambiguous colours, and for each thing that is there one that is not.

        What is absent has the shape or the colour of something that is there, so that a look at one of the two is
        not enough.
        """
        return (*self._presence(), *self._counts(), *self._colours())

    def _presence(self) -> Iterator[Question]:
        there = [(thing.colour, thing.shape) for thing in self.things]
        near = [
            (colour, shape)
            for colour in sorted(COLOURS)
            for shape in SHAPES
            if (colour, shape) not in there and any(colour == c or shape == s for c, s in there)
        ]
        absent = random.Random(repr(self)).sample(near, len(there))
        for answer, pairs in (("yes", there), ("no", absent)):
            for colour, shape in pairs:
                article = "an" if colour[0] in "aeiou" else "a"
                one = f"{colour} {shape}"
                yield Question("presence", f"Is there {article} {one}?", one, answer)

    def _counts(self) -> Iterator[Question]:
        for thing in self.things:
            them = f"{thing.colour} {many(thing.shape)}"
            yield Question("count", f"How many {them} are there?", them, NUMBERS[thing.count])

    def _colours(self) -> Iterator[Question]:
        groups = Counter(thing.shape for thing in self.things)
        for thing in self.things:
            if groups[thing.shape] == 1:
                verb, what = ("are", many(thing.shape)) if thing.count > 1 else ("is", thing.shape)
                yield Question("colour", f"What colour {verb} the {what}?", what, thing.colour)


def scene(rng: random.Random) -> Scene:
    """One to three groups of one to four shapes each, nine shapes at most."""
    groups = rng.randint(1, 3)
    kinds = rng.sample([(colour, shape) for colour in sorted(COLOURS) for shape in SHAPES], groups)
    counts = [rng.randint(1, 4) for _ in kinds]
    while sum(counts) > ROWS**2:
        counts = [rng.randint(1, 4) for _ in kinds]
    cells = iter(rng.sample(range(ROWS**2), sum(counts)))
    return Scene(
        tuple(
            Thing(colour, shape, tuple(_place(next(cells), rng) for _ in range(count)))
            for (colour, shape), count in zip(kinds, counts, strict=True)
        )
    )


def drawn_scene(scene: Scene, rng: random.Random, shift: Shift | None = None) -> Image.Image:
    """The scene on a plain ground that stands out from all its colours; RGB, 72 x 72."""
    ground = plain_colour(rng)
    while any(_distance(ground, COLOURS[thing.colour]) < CONTRAST for thing in scene.things):
        ground = plain_colour(rng)
    layer = Image.new("RGBA", (FINE * SIDE, FINE * SIDE))
    draw = ImageDraw.Draw(layer)
    for thing in scene.things:
        for place in thing.places:
            _draw(draw, thing.shape, COLOURS[thing.colour], place)
    layer = layer.reduce(FINE)
    return shown(fitted_turn(layer, rng) if shift == "rotation" else layer, ground, rng, shift)


def _place(cell: int, rng: random.Random) -> Place:
    side = SIDE // ROWS
    radius = rng.randint(7, 10)
    x, y = (side * k + rng.randint(radius + 1, side - radius - 1) for k in (cell % ROWS, cell // ROWS))
    return Place(x, y, radius)


def many(shape: str) -> str:
    """The plural of a shape."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _distance(one: Colour, other: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def _draw(draw: ImageDraw.ImageDraw, shape: str, colour: Colour, place: Place) -> None:
    x, y, radius = (FINE * value for value in (place.x, place.y, place.radius))
    box = (x - radius, y - radius, x + radius, y + radius)
    bar = radius // 3
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=bar + FINE)
    elif shape == "cross":
        draw.rectangle((x - bar, y - radius, x + bar, y + radius), fill=colour)
        draw.rectangle((x - radius, y - bar, x + radius, y + bar), fill=colour)
    else:
        corners, turn = {"square": (4, 0), "diamond": (4, 45), "triangle": (3, 0)}[shape]
        draw.regular_polygon((x, y, radius), corners, turn, fill=colour)
