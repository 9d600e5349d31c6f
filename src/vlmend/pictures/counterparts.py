"""Counterparts of our drawn people: the same view with another person in it, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Literal, get_args

import PIL.Image

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.errors import BadImage
from vlmend.pictures.galleries import GENDERS, gallery_view
from vlmend.pictures.glyphs import TONES, Glyph, Tone, people, skin_only

__all__ = ["Change", "counterpart", "counterparts", "with_counterparts"]

Change = Literal["gender", "skin"]
"""gender: the glyph of the other gender, of the same profession and tone. skin: the same glyph, its skin of the tone
furthest from its own."""

EDITED = "edited"
"""The attribute that says what was changed."""

FURTHEST: dict[Tone, Tone] = {tone: TONES[1] if place > 3 else TONES[-1] for place, tone in enumerate(TONES)}


def counterpart(row: Example, change: Change) -> Example | None:
    """The row with the other person in it, named after what it is `of`; None where it is no drawn person of ours.

    A row counts as drawn where drawing it anew gives the same pixels, so that no other picture is ever changed.
    """
    drawn = None if EDITED in row.attributes else _drawn(row)
    if drawn is None:
        return None
    glyph, at = drawn
    if change == "gender":
        other = _of_the_other_gender(glyph)
        picture, told, group = (
            other.image(),
            str(other.gender),
            str(other.gender) if row.group in GENDERS else row.group,
        )
    else:
        tone = FURTHEST[glyph.tone or "default"]
        picture, told, group = skin_only(glyph, tone), f"{tone} skin", row.group
    attributes = {**row.attributes, "of": row.id, EDITED: change}
    return replace(row, id=f"{row.id}~{told.replace(' ', '-')}", group=group, image=at(picture), attributes=attributes)


def counterparts(data: Dataset, change: Change = "gender") -> list[tuple[Example, Example]]:
    """Each drawn person of a data set, and the counterpart."""
    return [(row, found) for row in data.examples if (found := counterpart(row, change))]


def with_counterparts(data: Dataset, change: Change = "gender") -> Dataset:
    """A data set with the counterparts that are not in it behind its rows."""
    there = {row.id for row in data.examples}
    made = (found for _, found in counterparts(data, change) if found.id not in there)
    return replace(data, name=f"{data.name}-counterparts", examples=(*data.examples, *made))


def _drawn(row: Example) -> tuple[Glyph, Callable[[PIL.Image.Image], Image]] | None:
    """The glyph of a person of the galleries, and what draws another picture in its view."""
    name, _, k = row.id.partition("#")
    glyph = _people().get(name)
    if row.image is None or glyph is None or not k.isdigit():
        return None
    for split in get_args(Split):
        at = partial(gallery_view, glyph, split, int(k))
        if _same(at(glyph.image()), row.image):
            return glyph, at
    return None


def _same(one: Image, other: Image) -> bool:
    """To the pixel; a picture that cannot be read is like no other."""
    try:
        first, second = one.decode(), other.decode()
    except BadImage:
        return False
    return first.size == second.size and first.tobytes() == second.tobytes()


def _of_the_other_gender(glyph: Glyph) -> Glyph:
    same = (one for one in _people().values() if (one.profession, one.tone) == (glyph.profession, glyph.tone))
    return next(one for one in same if one.gender != glyph.gender)


@cache
def _people() -> dict[str, Glyph]:
    """The men and women, by id."""
    return {glyph.id: glyph for glyph in people() if glyph.gender in GENDERS}
