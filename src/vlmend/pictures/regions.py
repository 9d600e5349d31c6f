"""Pictures of people of which it is known where the person is, and where the person would differ as another one."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
import PIL.Image

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.pictures.counterfactuals import gender_pairs
from vlmend.pictures.galleries import GENDERS, LICENCE, PHOTO, QUESTION
from vlmend.pictures.glyphs import people
from vlmend.pictures.pool import phrase, sentence
from vlmend.pictures.views import view

__all__ = ["AGAINST", "BOX", "differing_parts", "people_in_place"]

BOX, AGAINST = "box", "against"
"""Attributes of a row: left, upper, right and lower edge of the person, in pixels; a text whose score is taken off."""


@cache
def people_in_place(split: Split) -> Dataset:
    """A man and a woman of each profession and tone, each with a mask of the person.

    The caption names the profession; the question is what there is to see, and its answer names the profession too.
    Pictures of one profession are one cluster.
    """
    of = {(g.profession, g.tone, g.gender): g for g in people()}
    rows: list[Example] = []
    for row in gender_pairs(split, lambda glyph: PHOTO.format(glyph.profession)):
        profession, tone, gender = row.id.split(":")
        glyph = of[profession, tone, gender]  # pyright: ignore[reportArgumentType]
        told = {"cluster": profession, "tone": tone, "profession": profession}
        rows.append(
            replace(
                row, prompt=QUESTION, group=gender, answers=(sentence(phrase(profession)),), attributes=told,
                more_images=(_silhouette(glyph.image(), f"gallery:{split}:{profession}:{tone}", row.id),),
            )
        )  # fmt: skip
    return Dataset(f"people-in-place-{split}", tuple(rows), LICENCE)


def differing_parts(split: Split) -> Dataset:
    """Men, each with a mask of what would differ if a woman of the same profession and tone stood there."""
    pairs: dict[str, dict[str, Example]] = {}
    for row in gender_pairs(split, lambda glyph: glyph.profession):
        pair, _, gender = row.id.rpartition(":")
        pairs.setdefault(pair, {})[gender] = row
    rows: list[Example] = []
    for pair in pairs.values():
        first, second = (_levels(pair[gender]) for gender in GENDERS)
        mask = PIL.Image.fromarray(np.where((first != second).any(-1), 255, 0).astype(np.uint8))
        rows.append(replace(pair[GENDERS[0]], group=GENDERS[0], more_images=(Image.from_pixels(mask, "what differs"),)))
    return Dataset(f"differing-parts-{split}", tuple(rows), LICENCE)


def _silhouette(glyph: PIL.Image.Image, seen: str, name: str) -> Image:
    """White where a glyph covers its ground: where it would be another picture in black than in white."""
    drawn = [np.asarray(view(_filled(glyph, level), random.Random(seen))) for level in (0, 255)]
    covered = (drawn[0] != drawn[1]).any(-1)
    return Image.from_pixels(PIL.Image.fromarray(np.where(covered, 255, 0).astype(np.uint8)), f"mask of {name}")


def _filled(glyph: PIL.Image.Image, level: int) -> PIL.Image.Image:
    """All of a glyph in one shade; what shows through stays."""
    made = PIL.Image.new("RGBA", glyph.size, (level, level, level, 0))
    made.putalpha(glyph.convert("RGBA").getchannel("A"))
    return made


def _levels(row: Example) -> np.ndarray:
    assert row.image is not None
    return np.asarray(row.image.decode().convert("RGB"))
