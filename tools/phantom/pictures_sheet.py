"""Contact sheets of the pictures, for the docs: `python -m tools.phantom.pictures_sheet docs/pictures`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from vlmend.pictures.glyphs import GENDERS, TONES, Glyph, objects, people, skin_only
from vlmend.pictures.pool import Part, drawn
from vlmend.pictures.views import SHIFTS, SIDE, Shift
from vlmend.pictures.words import font_of

__all__ = ["glyph_sheet", "people_sheet", "pool_sheet", "save"]

SMALL = 44
PARTS: tuple[Part, ...] = ("object", "person", "word", "scene")


def glyph_sheet(columns: int = 24) -> Image.Image:
    """All objects with their names."""
    cell_width, cell_height = SMALL + 10, SMALL + 12
    glyphs = objects()
    rows = -(-len(glyphs) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, glyph in enumerate(glyphs):
        x, y = place % columns * cell_width, place // columns * cell_height
        _paste(sheet, glyph.image(), SMALL, x + 5, y)
        draw.text((x + cell_width / 2, y + SMALL + 6), glyph.name, "black", font_of("seen", 7), anchor="mm")
    return sheet


def people_sheet() -> Image.Image:
    """All 360 people, and of each profession one skin-only row: the light woman with each skin."""
    of = {(glyph.profession, glyph.gender, glyph.tone): glyph for glyph in people()}
    professions = sorted({glyph.profession for glyph in people()})
    label, across = 90, len(TONES) * (len(GENDERS) + 1)
    sheet = Image.new("RGB", (label + across * SMALL + 30, len(professions) * SMALL), "white")
    draw = ImageDraw.Draw(sheet)
    for row, profession in enumerate(professions):
        draw.text((2, (row + 0.5) * SMALL), profession, "black", font_of("seen", 9), anchor="lm")
        light: Glyph = of[profession, "woman", "light"]
        cells = [of[profession, gender, tone].image() for gender in GENDERS for tone in TONES]
        cells += [skin_only(light, tone) for tone in TONES]
        for place, cell in enumerate(cells):
            gap = 10 * (place // len(TONES))
            _paste(sheet, cell, SMALL, label + place * SMALL + gap, row * SMALL)
    return sheet


def pool_sheet(columns: int = 8, seed: int = 0) -> Image.Image:
    """Held-out pictures of each part, ordinary and with each shift."""
    pairs = list(_rows())
    label, cell = 110, SIDE + 2
    sheet = Image.new("RGB", (label + columns * cell, len(pairs) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (part, shift) in enumerate(pairs):
        draw.text((2, (row + 0.5) * cell), f"{part}, {shift or 'ordinary'}", "black", font_of("seen", 11), anchor="lm")
        for column in range(columns):
            picture = drawn(part, "held_out", seed, column, shift).image
            sheet.paste(picture, (label + column * cell, row * cell))
    return sheet


def save(folder: Path) -> Iterator[Path]:
    """Write the three sheets as PNG, the large ones in 256 colours, and give their paths."""
    large = {"glyphs": glyph_sheet(), "people": people_sheet()}
    small = {name: sheet.quantize(256, dither=Image.Dither.NONE) for name, sheet in large.items()}
    for name, sheet in {**small, "pool": pool_sheet()}.items():
        path = folder / f"pictures_{name}.png"
        sheet.save(path, optimize=True)
        yield path


def _rows() -> Iterator[tuple[Part, Shift | None]]:
    """Every part, ordinary and with each shift that it has."""
    shifts: tuple[Shift | None, ...] = (None, *SHIFTS)
    for shift in shifts:
        for part in PARTS:
            if shift != "font" or part == "word":
                yield part, shift


def _paste(sheet: Image.Image, picture: Image.Image, side: int, x: int, y: int) -> None:
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    sheet.paste(small, (x, y), small)


if __name__ == "__main__":
    for written in save(Path(sys.argv[1])):
        print(written, written.stat().st_size)
