"""Drawn words: one common word across the picture, in one of two fonts.

The 300 words are `words.txt`. The fonts are DejaVu Sans ("seen") and DejaVu Serif ("unseen", the font shift), cut down
to ASCII; their licence is in `fonts/`.
"""

from __future__ import annotations

import io
import random
from functools import cache
from importlib import resources
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from vlmend.pictures.views import SIDE, Colour, Shift, fitted_turn, plain_colour, shown

__all__ = ["WORDS", "Font", "drawn_word", "font_of", "letters_across"]

Font = Literal["seen", "unseen"]

_FILES = resources.files("vlmend.pictures")
WORDS: tuple[str, ...] = tuple(_FILES.joinpath("words.txt").read_text().split())
"""300 common nouns and adjectives of 3 to 7 letters, sorted."""

TALLEST = 34
CONTRAST = 90
"""Least difference of ink and ground in luminance (Rec. 601), of 255."""
SMALL_ANGLE = 4.0


def drawn_word(word: str, rng: random.Random, font: Font = "seen", shift: Shift | None = None) -> Image.Image:
    """A word in small letters that fills the width, in a colour that stands out from its plain ground.

    Args:
        word: ASCII letters.
        rng: What is random comes from here.
        font: The unseen one is the shift "font".
        shift: Another shift; "font" is the same as the unseen font.

    Returns:
        RGB, 72 x 72.
    """
    ground = plain_colour(rng)
    ink = _ink(ground, rng)
    room = rng.randint(SIDE - 14, SIDE - 6)
    layer = _layer(word, "unseen" if shift == "font" else font, ink, room, rng.uniform(-1, 1))
    angle = rng.uniform(-SMALL_ANGLE, SMALL_ANGLE)
    turned = fitted_turn(layer, rng) if shift == "rotation" else layer.rotate(angle, Image.Resampling.BICUBIC)
    return shown(turned, ground, rng, shift)


@cache
def letters_across(word: str, columns: int) -> tuple[str, ...]:
    """The letter in the middle of each column of a picture of the word in the seen font; beside it, its nearest one.

    Words fill the width within a few pixels, whatever is random.
    """
    font = font_of("seen", TALLEST)
    length = font.getlength(word)
    shrunk = min(1, (SIDE - 10) / length)
    ends = [font.getlength(word[: k + 1]) for k in range(len(word))]
    middles = [(SIDE * (column + 0.5) / columns - SIDE / 2) / shrunk + length / 2 for column in range(columns)]
    return tuple(word[min(sum(end < middle for end in ends), len(word) - 1)] for middle in middles)


@cache
def font_of(font: Font, size: int) -> ImageFont.FreeTypeFont:
    """One of the two fonts at a size in pixels."""
    name = {"seen": "dejavu-sans.ttf", "unseen": "dejavu-serif.ttf"}[font]
    data = io.BytesIO(_FILES.joinpath("fonts", name).read_bytes())
    return ImageFont.truetype(data, size, layout_engine=ImageFont.Layout.BASIC)


def _layer(word: str, font: Font, ink: Colour, room: int, height: float) -> Image.Image:
    """The word in the largest size that fits, centred across and at `height` from -1 (top) to 1 (bottom)."""
    size = max(size for size in range(6, TALLEST + 1) if font_of(font, size).getlength(word) <= room)
    left, top, right, bottom = font_of(font, size).getbbox(word)
    spare = (SIDE - (bottom - top)) / 2
    at = ((SIDE - right - left) / 2, (SIDE - bottom - top) / 2 + 0.7 * spare * height)
    layer = Image.new("RGBA", (SIDE, SIDE), (*ink, 0))
    ImageDraw.Draw(layer).text(at, word, ink, font_of(font, size))
    return layer


def _ink(ground: Colour, rng: random.Random) -> Colour:
    """A dark colour on a light ground, a light one on a dark ground."""
    low, high = (0, 90) if _luminance(ground) > 127 else (165, 255)
    while True:
        ink = (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))
        if abs(_luminance(ink) - _luminance(ground)) >= CONTRAST:
            return ink


def _luminance(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
