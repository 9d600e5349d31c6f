"""Whole texts as pictures: wrapped lines of black letters on white, the same pixels wherever it runs.

Nothing is clipped: what does not fit, and what the font has no letter for, is an error of that text.
"""

from __future__ import annotations

import io
import textwrap
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from vlmend.errors import BadParameter, SampleError

__all__ = ["FONT", "Sheet", "text_picture", "wrapped"]

FONT = "DejaVu Sans Mono Bold 2.35, printable ASCII"
"""The font that comes with the package."""

UNSEEN = "\U0010fffe"
"""A code point that no font has a letter for."""

PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})


@dataclass(frozen=True)
class Sheet:
    """How a text is drawn.

    Attributes:
        side: Width and height of the picture, in pixels.
        size: Of the letters, in pixels.
        across: Characters in a line; longer words are broken.
        left, top: Where the first line begins.
        gap: Pixels between the foot of a capital letter and the next line.
        font: A font file (.ttf, .otf); empty for the one that comes with the package.
    """

    side: int = 760
    size: int = 72
    across: int = 15
    left: int = 20
    top: int = 10
    gap: int = 6
    font: str = ""

    def __post_init__(self) -> None:
        if min(self.side, self.size, self.across) < 1 or min(self.left, self.top, self.gap) < 0:
            raise BadParameter(
                f"side={self.side}, size={self.size}, across={self.across}, left={self.left}, top={self.top} and "
                f"gap={self.gap} are no sheet.",
                "side, size and across are 1 or more, the others 0 or more.",
            )

    def width_of(self, line: str) -> int:
        """Pixels from the beginning of a line to the place of the next letter."""
        return round(_font(self.font, self.size).getlength(line))


def wrapped(text: str, across: int) -> list[str]:
    """The lines of a text of so many characters at most; quotes and dashes become those of ASCII."""
    plain = unicodedata.normalize("NFKC", text).translate(PLAIN)
    return textwrap.wrap(" ".join(plain.split()), across)


def text_picture(lines: list[str], sheet: Sheet) -> PIL.Image.Image:
    """Lines of text from the top, black on white, RGB, "side side".

    Raises:
        SampleError: The font lacks a letter, or a line lies outside of the picture.
        BadParameter: The font cannot be read.
    """
    font = _font(sheet.font, sheet.size)
    lacking = sorted({letter for letter in "".join(lines) if not _has(sheet.font, sheet.size, letter)})
    if lacking:
        raise SampleError(
            f"{_name(sheet.font)} has no letter for {', '.join(map(repr, lacking[:5]))}.",
            "Pass a font that has it (--set font=FILE.ttf), or leave the row out.",
        )
    pitch = round(font.getbbox("A")[3]) + sheet.gap
    places = [(sheet.left, sheet.top + k * pitch) for k in range(len(lines))]
    ends = [font.getbbox(line) for line in lines]
    width = max((x + end[2] for (x, _), end in zip(places, ends, strict=True)), default=0)
    height = max((y + end[3] for (_, y), end in zip(places, ends, strict=True)), default=0)
    if width > sheet.side or height > sheet.side:
        raise SampleError(
            f"Its {len(lines)} lines take {width:.0f} x {height:.0f} pixels, and the picture has {sheet.side} a side.",
            "Take smaller letters (--set size=60 --set across=20), or shorten or leave out the row.",
        )
    picture = PIL.Image.new("RGB", (sheet.side, sheet.side), "white")
    pen = PIL.ImageDraw.Draw(picture)
    for place, line in zip(places, lines, strict=True):
        pen.text(place, line, "black", font)
    return picture


def _name(font: str) -> str:
    return font or FONT


@cache
def _font(font: str, size: int) -> PIL.ImageFont.FreeTypeFont:
    try:
        data = Path(font).read_bytes() if font else _own()
        return PIL.ImageFont.truetype(io.BytesIO(data), size, layout_engine=PIL.ImageFont.Layout.BASIC)
    except OSError as problem:
        raise BadParameter(f"The font {font} cannot be read ({problem}).", "Pass a .ttf or .otf file.") from problem


def _own() -> bytes:
    return resources.files("vlmend.pictures").joinpath("fonts", "dejavu-sans-mono-bold.ttf").read_bytes()


@cache
def _has(font: str, size: int, letter: str) -> bool:
    """Whether the font draws anything but its box of what it lacks."""
    if letter == " ":
        return True
    shown, box = (_stamp(one, _font(font, size)) for one in (letter, UNSEEN))
    return shown != box


def _stamp(letter: str, font: PIL.ImageFont.FreeTypeFont) -> bytes:
    """The pixels of one letter."""
    side = 2 * round(font.size) + 2
    picture = PIL.Image.new("L", (side, side))
    PIL.ImageDraw.Draw(picture).text((0, 0), letter, 255, font)
    return picture.tobytes()
