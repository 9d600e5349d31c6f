"""Pictures that differ in one thing: pairs of people and of objects, and complete sets of people.

All pictures of a pair or a set are seen alike: same ground, place, size, angle. Pairs of tones differ in skin alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache

import PIL.Image

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.pictures.galleries import GENDERS, LICENCE, PHOTO, UNSEEN_CATEGORIES
from vlmend.pictures.glyphs import Glyph, objects, people, skin_only
from vlmend.pictures.views import view

__all__ = ["NEUTRAL", "PAIR", "SET", "counterfactual_pairs", "gender_pairs", "people_in_sets"]

PAIR, SET, NEUTRAL = "pair", "set", "neutral"
"""Attributes: which rows differ in one thing; that captions say nothing of what differs."""

OBJECTS = 100
"""Pairs of objects."""

Caption = Callable[[Glyph], str]


def gender_pairs(split: Split, caption: Caption) -> Iterator[Example]:
    """A man and a woman of each profession and tone, seen alike, with that caption."""
    of = {(g.profession, g.tone, g.gender): g for g in people()}
    for profession, tone in dict.fromkeys((g.profession, g.tone) for g in people() if g.tone != "default"):
        pair = f"{profession}:{tone}"
        for gender in GENDERS:
            glyph = of[profession, tone, gender]
            told = {PAIR: pair, "cluster": profession}
            yield _row(f"{pair}:{gender}", "gender", glyph.image(), f"{split}:{pair}", caption(glyph), told)


@cache
def counterfactual_pairs(split: Split) -> Dataset:
    """Pairs of a gender, of a tone of skin and of an object, each with captions that say what differs."""
    rows = [
        *gender_pairs(split, lambda glyph: PHOTO.format(f"{glyph.gender} {glyph.profession}")),
        *_tones(split),
        *_objects(split),
    ]
    return Dataset(f"counterfactual-pairs-{split}", tuple(rows), LICENCE)


@cache
def people_in_sets(split: Split, sets: int = 2) -> Dataset:
    """So many sets of each profession: man and woman in five tones, seen alike; captions name the profession."""
    cells = [g for g in people() if g.gender in GENDERS and g.tone != "default"]
    rows: list[Example] = []
    for glyph in cells:
        for k in range(sets):
            own = f"{glyph.profession}:{k}"
            told = {SET: own, "gender": str(glyph.gender), "tone": str(glyph.tone), "occupation": glyph.profession}
            row = _row(f"{glyph.id}@{k}", "", glyph.image(), f"{split}:{own}", PHOTO.format(glyph.profession), told)
            rows.append(row)
    return Dataset(f"people-in-sets-{split}-{sets}", tuple(rows), LICENCE)


def _tones(split: Split) -> Iterator[Example]:
    """The light person and the same one with dark skin."""
    for glyph in people():
        if glyph.gender in GENDERS and glyph.tone == "light":
            for tone in ("light", "dark"):
                picture = glyph.image() if tone == "light" else skin_only(glyph, tone)
                caption = PHOTO.format(f"{glyph.profession} with {tone} skin")
                told = {PAIR: f"{glyph.id}:tone", "cluster": glyph.profession}
                yield _row(f"{glyph.id}:{tone}", "tone", picture, f"{split}:{glyph.id}:tone", caption, told)


def _objects(split: Split) -> Iterator[Example]:
    known = [glyph for glyph in objects() if glyph.category not in UNSEEN_CATEGORIES]
    drawn = random.Random(f"gallery:{split}:pairs").sample(known, 2 * OBJECTS)
    for k in range(OBJECTS):
        for glyph in drawn[2 * k : 2 * k + 2]:
            caption, told = PHOTO.format(glyph.name), {PAIR: f"objects:{k}"}
            yield _row(f"object:{glyph.id}", "object", glyph.image(), f"{split}:objects:{k}", caption, told)


def _row(name: str, group: str, glyph: PIL.Image.Image, seen: str, caption: str, told: dict[str, str]) -> Example:
    picture = Image.from_pixels(view(glyph, random.Random(f"gallery:{seen}")), name)
    return Example(name, group=group, image=picture, caption=caption, attributes=told)
