"""The glyphs: 128 px Noto emoji of things and of people, with what each one is.

People come as a complete design: 20 professions x 3 genders x 6 tones, one glyph a cell. The five skin tones of a
profession and gender share their silhouette, but hair, brows, eyes and mouth move with the tone in Noto, so a pair of
tones does not differ in skin alone. `skin_only` gives the pair that does.

The font's "default" tone is its yellow one, which stands for no skin tone; "person" is Unicode's neutral form, not the
absence of a gender.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, cast, get_args

import numpy as np
from PIL import Image

from vlmend.errors import BadParameter

__all__ = [
    "GENDERS", "HEADER", "SIDE", "TONES", "Gender", "Glyph", "Tone", "objects", "people", "skin_mask", "skin_only",
]  # fmt: skip

SIDE = 128
"""Side of a glyph, in pixels."""

Tone = Literal["default", "light", "medium-light", "medium", "medium-dark", "dark"]
Gender = Literal["person", "woman", "man"]
TONES: tuple[Tone, ...] = get_args(Tone)
GENDERS: tuple[Gender, ...] = get_args(Gender)
HEADER = ("id", "name", "category", "profession", "gender", "tone")


@dataclass(frozen=True)
class Glyph:
    """One emoji.

    Attributes:
        id: Its code points, in small hexadecimal letters joined by "-" ("1f528").
        name: What a child would call it ("hammer"); of a person the profession ("health worker").
        category: Its kind (animal, food, ...); "person" for people.
        profession, gender, tone: Of people only.
    """

    id: str
    name: str
    category: str
    profession: str = ""
    gender: Gender | None = None
    tone: Tone | None = None

    def image(self) -> Image.Image:
        """Its picture, RGBA, 128 x 128, a fresh copy."""
        return _picture(f"{self.id}.webp").convert("RGBA")


def objects() -> tuple[Glyph, ...]:
    """All that is no person, by name; every name once."""
    return tuple(sorted((glyph for glyph in _table() if glyph.category != "person"), key=lambda glyph: glyph.name))


def people() -> tuple[Glyph, ...]:
    """The 360 people: by profession, then person, woman, man, then from the default tone over light to dark."""
    return tuple(glyph for glyph in _table() if glyph.category == "person")


def skin_mask(glyph: Glyph) -> Image.Image:
    """How much of what is drawn in each pixel is skin, "L" from 0 to 255 (all of it); the same for the six tones.

    Raises:
        BadParameter: The glyph is no person.
    """
    return _picture(f"{_toned(glyph, 'default').id}.skin.webp").convert("L")


def skin_only(glyph: Glyph, tone: Tone) -> Image.Image:
    """The person with the skin of another tone; hair, eyes, clothes and silhouette stay. RGBA, 128 x 128.

    Where a pixel is all skin it is the pixel of the other tone's glyph, where none of it is skin it stays, and where
    skin meets something else it moves by its share of skin times the change at the nearest pixel that is all skin.

    Raises:
        BadParameter: The glyph is no person.
    """
    from scipy.ndimage import distance_transform_edt  # this module is read wherever data sets are listed

    share = np.asarray(skin_mask(glyph), float)[..., None] / 255
    own, other = (np.asarray(each.image(), float) for each in (glyph, _toned(glyph, tone)))
    nearest = distance_transform_edt(share[..., 0] < 1, return_distances=False, return_indices=True)
    change = (other - own)[tuple(cast(np.ndarray, nearest))]
    return Image.fromarray(np.clip(own + share * change, 0, 255).round().astype(np.uint8), "RGBA")


def _toned(glyph: Glyph, tone: Tone) -> Glyph:
    """The glyph of the same profession and gender in another tone."""
    if glyph.tone is None:
        raise BadParameter(f"The glyph {glyph.name!r} shows no person, so it has no skin.", "Pass one of people().")
    place = _table().index(glyph)
    return _table()[place + TONES.index(tone) - TONES.index(glyph.tone)]


@cache
def _table() -> tuple[Glyph, ...]:
    rows = [line.split("\t") for line in _files()["names.tsv"].decode().splitlines()[1:]]
    return tuple(
        Glyph(id, name, category, profession, cast(Gender, gender) or None, cast(Tone, tone) or None)
        for id, name, category, profession, gender, tone in rows
    )


@cache
def _files() -> dict[str, bytes]:
    data = resources.files("vlmend.pictures").joinpath("glyphs.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as pack_file:
        return {name: pack_file.read(name) for name in pack_file.namelist()}


def _picture(file: str) -> Image.Image:
    """Decoded anew each time: a thousand open pictures would stay in memory, and drawing one takes longer."""
    return Image.open(io.BytesIO(_files()[file]))
