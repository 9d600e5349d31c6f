"""The phantom's pictures: Noto emoji and drawn shapes on plain grounds, made from a seed.

`picture(split, seed, index)` is a pure function: the same arguments give the same pixels,
caption and facts everywhere. The two splits draw from different streams, so a held-out view
is never a training view. Blank and noise pictures live in `vlmend.core.conversation`, because
every model needs them.
"""

from __future__ import annotations

import io
import math
import random
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from PIL import Image, ImageDraw

__all__ = ["SIZE", "Picture", "View", "emoji_names", "picture", "picture_names"]

SIZE = 64
"""Side of every picture, in pixels."""

View = Literal["train", "held_out"]

COLOURS = {
    "red": (214, 40, 40), "green": (46, 139, 60), "blue": (40, 80, 200), "yellow": (245, 205, 40),
    "purple": (128, 50, 160), "orange": (245, 130, 30), "brown": (120, 75, 40), "pink": (245, 130, 180),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SHAPE_SHARE = 0.12


@dataclass(frozen=True)
class Picture:
    """One drawn picture with what is in it.

    `name` is what a right answer must name; `category` is its kind (animal, food, shape, ...).
    """

    image: Image.Image
    name: str
    category: str

    @property
    def caption(self) -> str:
        """The caption the phantom is taught to give."""
        article = "an" if self.name[0] in "aeiou" else "a"
        plural = self.name.split()[-1].endswith("s") and not self.name.endswith("ss")
        return f"A picture of {self.name if plural else f'{article} {self.name}'}."


@dataclass(frozen=True)
class _Emoji:
    image: Image.Image
    name: str
    category: str


def picture(view: View, seed: int, index: int) -> Picture:
    """Draw picture number `index` of one view and seed: an emoji, or now and then a shape."""
    rng = random.Random(f"{view}:{seed}:{index}")
    canvas = Image.new("RGB", (SIZE, SIZE), _ground(rng))
    if rng.random() < SHAPE_SHARE:
        colour, shape = rng.choice(sorted(COLOURS)), rng.choice(SHAPES)
        _draw_shape(canvas, shape, COLOURS[colour], rng)
        return Picture(canvas, f"{colour} {shape}", "shape")
    emoji = rng.choice(_emoji())
    side = rng.randint(50, 60)
    glyph = emoji.image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    glyph = glyph.resize((side, side), Image.Resampling.LANCZOS)
    room = SIZE - side
    canvas.paste(glyph, (rng.randint(0, room), rng.randint(0, room)), glyph)
    return Picture(canvas, emoji.name, emoji.category)


@cache
def emoji_names() -> tuple[str, ...]:
    """Names of the packed emoji, sorted, each once."""
    return tuple(sorted({emoji.name for emoji in _emoji()}))


@cache
def picture_names() -> tuple[str, ...]:
    """Every name a picture can have, emoji first, then shapes."""
    return emoji_names() + tuple(f"{colour} {shape}" for colour in sorted(COLOURS) for shape in SHAPES)


@cache
def _emoji() -> tuple[_Emoji, ...]:
    data = resources.files(__name__).joinpath("emoji.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as pack_file:
        rows = [line.split("\t") for line in pack_file.read("names.tsv").decode().splitlines()[1:]]
        return tuple(
            _Emoji(Image.open(io.BytesIO(pack_file.read(file))).convert("RGBA"), name, category)
            for file, name, category in rows
        )


def _ground(rng: random.Random) -> tuple[int, int, int]:
    """A plain ground from white over pastels to dark."""
    base, spread = rng.choice(((255, 0), (225, 30), (225, 30), (150, 60), (60, 40)))
    return tuple(max(0, min(255, base + rng.randint(-spread, spread))) for _ in range(3))  # type: ignore[return-value]


def _draw_shape(canvas: Image.Image, shape: str, colour: tuple[int, int, int], rng: random.Random) -> None:
    radius = rng.randint(14, 26)
    x, y = rng.randint(radius, SIZE - radius), rng.randint(radius, SIZE - radius)
    draw = ImageDraw.Draw(canvas)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=max(4, radius // 3))
    elif shape == "cross":
        third = max(4, radius // 3)
        draw.rectangle((x - third, y - radius, x + third, y + radius), fill=colour)
        draw.rectangle((x - radius, y - third, x + radius, y + third), fill=colour)
    else:
        corners, turn = {"square": (4, math.pi / 4), "diamond": (4, 0.0), "triangle": (3, -math.pi / 2)}[shape]
        points = [
            (x + radius * math.cos(turn + 2 * math.pi * k / corners),
             y + radius * math.sin(turn + 2 * math.pi * k / corners))
            for k in range(corners)
        ]  # fmt: skip
        draw.polygon(points, fill=colour)
