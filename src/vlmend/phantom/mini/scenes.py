"""What is seen in the mini world: up to three coloured shapes, drawn words, noise; 32 pixels wide.

Nothing of Pillow draws here, so the pixels are the same in every version of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmend.core.images import noise_image
from vlmend.core.splits import Split, split_of
from vlmend.phantom.mini.language import COLOURS, TOPICS

__all__ = [
    "CELLS",
    "GROUNDS",
    "SHAPES",
    "SIDE",
    "WORD_QUESTIONS",
    "DrawnWord",
    "Question",
    "QuestionKind",
    "Scene",
    "Thing",
    "any_picture",
    "drawn_word",
    "said_of_pictures",
    "scene",
]  # fmt: skip

SIDE = 32
"""Width and height of a picture, in pixels."""

QuestionKind = Literal["caption", "colour", "shape", "count", "presence", "place"]
Pixels = NDArray[np.uint8]

SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
CELLS = ("northwest", "northeast", "southwest", "southeast")
NUMBERS = ("zero", "one", "two", "three")
INKS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35), "green": (30, 140, 50), "blue": (35, 75, 215), "yellow": (250, 215, 30),
    "purple": (140, 45, 165), "orange": (245, 130, 25),
}  # fmt: skip
GROUNDS = {
    "white": (245, 245, 245), "mint": (180, 235, 205), "sky": (175, 215, 245), "rose": (245, 200, 215),
    "cream": (250, 240, 200), "lilac": (215, 200, 240),
}  # fmt: skip
BLACK = (15, 15, 15)
ASKED: dict[QuestionKind, tuple[str, ...]] = {
    "caption": ("what is in the picture?", "describe the picture."),
    "colour": ("what colour is the {}?", "which colour has the {}?"),
    "shape": ("which shape is {}?", "what is the {} thing?"),
    "count": ("how many {} things are there?", "count the {} things."),
    "presence": ("is there a {}?", "do you see a {}?"),
    "place": ("where is the {}?", "in which corner is the {}?"),
}
WORD_QUESTIONS = ("what does it say?", "read the word.", "which word is written here?")
LETTERS = {
    "a": "010101111101101", "b": "110101110101110", "d": "110101101101110", "e": "111100110100111",
    "f": "111100110100100", "g": "011100101101011", "i": "111010010010111", "j": "001001001101010",
    "k": "101101110101101", "l": "100100100100111", "m": "101111111101101", "n": "110101101101101",
    "o": "010101101101010", "p": "110101110100100", "q": "010101101111011", "r": "110101110110101",
    "t": "111010010010010", "u": "101101101101111", "v": "101101101101010", "w": "101101111111101",
    "x": "101101010101101", "z": "111001010100111",
}  # fmt: skip
"""Letters of 3 x 5 dots, row by row."""


@dataclass(frozen=True)
class Question:
    """A question about a picture with its one right answer, which restates what is asked ("red circle northwest")."""

    kind: QuestionKind
    prompt: str
    answer: str


@dataclass(frozen=True)
class Thing:
    """One shape in one quarter of the picture (`CELLS`)."""

    colour: str
    shape: str
    cell: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Things, in the order of their cells, on a ground."""

    things: tuple[Thing, ...]
    ground: str

    @property
    def caption(self) -> str:
        return " and ".join(f"a {thing.name}" for thing in self.things) or "nothing"

    @property
    def split(self) -> Split:
        """By what is where; the ground does not count."""
        return split_of(" ".join(f"{thing.name} {CELLS[thing.cell]}" for thing in self.things))

    @property
    def repeats_a_colour(self) -> bool:
        return len({thing.colour for thing in self.things}) < len(self.things)

    def with_shape(self, old: str, new: str) -> Scene:
        """The same scene with every `old` shape a `new` one."""
        return replace(self, things=tuple(replace(t, shape=new) if t.shape == old else t for t in self.things))

    def question(self, kind: QuestionKind, rng: random.Random) -> Question:
        """A question of that kind; `caption` where the scene does not allow it."""
        about, answer = self._about(kind, rng)
        if not answer:
            return self.question("caption", rng)
        restated = f"{about} {answer}" if about else answer
        return Question(kind, rng.choice(ASKED[kind]).format(about), restated)

    def draw(self, rng: random.Random, width: int | None = None) -> Image.Image:
        """The picture; places within cells and tints vary with `rng`, and widths where none is given, in pixels."""
        pixels = _ground(self.ground, rng)
        for thing in self.things:
            size = width or rng.randint(12, 14)
            mask = _mask(thing.shape, size)
            down, right = (16 * (thing.cell // 2), 16 * (thing.cell % 2))
            y, x = down + rng.randint(0, 16 - size), right + rng.randint(0, 16 - size)
            pixels[y : y + size, x : x + size][mask] = _tinted(INKS[thing.colour], rng)
        return Image.fromarray(pixels)

    def _about(self, kind: QuestionKind, rng: random.Random) -> tuple[str, str]:
        """What the question names and its answer; no answer where none is the only right one."""
        if kind == "caption" or not self.things:
            return "", self.caption if kind == "caption" else ""
        thing = rng.choice(self.things)
        if kind == "colour":
            return thing.shape, thing.colour if self._alone("shape", thing.shape) else ""
        if kind == "shape":
            return thing.colour, thing.shape if self._alone("colour", thing.colour) else ""
        if kind == "place":
            return thing.name, CELLS[thing.cell] if self._alone("name", thing.name) else ""
        if kind == "count":
            colour = thing.colour if rng.random() < 0.8 else rng.choice(COLOURS)
            return colour, NUMBERS[sum(other.colour == colour for other in self.things)]
        if rng.random() < 0.5:
            return thing.name, "yes"
        absent = [f"{thing.colour} {shape}" for shape in SHAPES] + [f"{colour} {thing.shape}" for colour in COLOURS]
        return rng.choice([name for name in absent if all(name != other.name for other in self.things)]), "no"

    def _alone(self, what: str, value: str) -> bool:
        return [getattr(thing, what) for thing in self.things].count(value) == 1


@dataclass(frozen=True)
class DrawnWord:
    """A word in black on a ground.

    Attributes:
        word, ground: What is written, and on what.
        column, row: Eighths of the picture's width and height at which it begins; its letters are two eighths
            high, and each within an eighth of the width.
    """

    word: str
    ground: str
    column: int = 0
    row: int = 1

    @property
    def split(self) -> Split:
        """By word, ground and place."""
        return split_of(f"{self.word} on {self.ground} at {self.column} {self.row}")

    def draw(self, rng: random.Random) -> Image.Image:
        """The picture; place within the eighths and tints vary with `rng`."""
        pixels = _ground(self.ground, rng)
        mask = _word_mask(self.word)
        height, width = mask.shape
        x, y = 8 * self.column + rng.randint(0, 2), 8 * self.row + rng.randint(2, 4)
        pixels[y : y + height, x : x + width][mask] = _tinted(BLACK, rng)
        return Image.fromarray(pixels)


def scene(split: Split, rng: random.Random, things: int | None = None) -> Scene:
    """A random scene of a split, with so many things, or none to three of them."""
    while True:
        number = rng.choices((0, 1, 2, 3), (0.04, 0.36, 0.36, 0.24))[0] if things is None else things
        cells = sorted(rng.sample(range(4), number))
        drawn = tuple(Thing(rng.choice(COLOURS), rng.choice(SHAPES), cell) for cell in cells)
        made = Scene(drawn, rng.choice(list(GROUNDS)))
        if not drawn or made.split == split:
            return made


def drawn_word(split: Split, rng: random.Random) -> DrawnWord:
    """A random drawn topic word of a split."""
    while True:
        made = DrawnWord(rng.choice(TOPICS), rng.choice(list(GROUNDS)), rng.randint(0, 1), rng.randint(0, 2))
        if made.split == split:
            return made


def any_picture(split: Split, rng: random.Random) -> Image.Image:
    """A picture to stand beside a request: a scene, now and then a drawn word or noise."""
    kind = rng.random()
    if kind < 0.7:
        return scene(split, rng).draw(rng)
    return drawn_word(split, rng).draw(rng) if kind < 0.9 else noise_image(SIDE, rng.getrandbits(32)).decode()


def said_of_pictures() -> list[str]:
    """Texts that hold every word of every question and answer about pictures."""
    asked = [frame.format("") for frames in ASKED.values() for frame in frames]
    said = "a and nothing yes no"
    return [*asked, said, *WORD_QUESTIONS, *COLOURS, *SHAPES, *CELLS, *NUMBERS, *TOPICS, *LETTERS]


def _ground(ground: str, rng: random.Random) -> Pixels:
    return np.full((SIDE, SIDE, 3), _tinted(GROUNDS[ground], rng), np.uint8)


def _tinted(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, ...]:
    """The colour, up to ten levels off in each channel."""
    return tuple(max(0, min(255, level + rng.randint(-10, 10))) for level in colour)


@cache
def _mask(shape: str, size: int) -> NDArray[np.bool_]:
    """Which pixels of a square of that size belong to the shape."""
    at = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = at[:, None], at[None, :]
    inside: dict[str, Callable[[], NDArray[np.bool_]]] = {
        "circle": lambda: x**2 + y**2 <= 1,
        "square": lambda: (abs(x) <= 0.85) & (abs(y) <= 0.85),
        "triangle": lambda: abs(x) <= (y + 1) / 2,
        "cross": lambda: (abs(x) <= 0.3) | (abs(y) <= 0.3),
        "ring": lambda: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.35),
        "diamond": lambda: abs(x) + abs(y) <= 1,
    }
    return inside[shape]()


@cache
def _word_mask(word: str) -> NDArray[np.bool_]:
    """Letters of 6 x 10 pixels, 2 apart: "10 8n-2"."""
    letters = [np.array([dot == "1" for dot in LETTERS[letter]]).reshape(5, 3) for letter in word]
    dots = np.concatenate([np.pad(letter, ((0, 0), (0, 1))) for letter in letters], axis=1)[:, :-1]
    return np.repeat(np.repeat(dots, 2, axis=0), 2, axis=1)
