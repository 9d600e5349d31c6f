"""Rows of one category that should coincide: texts, or pictures, that differ in a protected attribute alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import TypeVar

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData
from vlmend.pictures.galleries import GENDERS, PHOTO, professions

__all__ = ["counterpart_places", "gendered_texts", "picture_pairs", "text_pairs"]

One = TypeVar("One")


def gendered_texts() -> tuple[Example, ...]:
    """The man and the woman of each of 20 professions, the profession as category."""
    return tuple(
        Example(f"{profession}:{gender}", PHOTO.format(f"{gender} {profession}"), "benign", profession)
        for profession in professions()
        for gender in GENDERS
    )


def text_pairs(data: Dataset, without: str = "") -> list[tuple[str, str]]:
    """Every two texts without image of one category; rows of none, or of the one left out, are not read."""
    rows = ((row.group, row.prompt) for row in data.examples if row.image is None and row.prompt)
    return _pairs((group, prompt) for group, prompt in rows if group != without)


def picture_pairs(data: Dataset) -> list[tuple[Image, Image]]:
    """Every two pictures of one category; rows of none are not read."""
    return _pairs((row.group, row.image) for row in data.examples if row.image is not None)


def counterpart_places(data: Dataset, rows: Sequence[Example]) -> list[tuple[int, int]]:
    """Of these rows of the data, the place of each picture and of the one that is `of` it, by that attribute.

    Raises:
        BadData: There is none.
    """
    place = {row.id: k for k, row in enumerate(rows)}
    found = [(place[of], k) for k, row in enumerate(rows) if (of := row.attributes.get("of", "")) in place]
    if not found:
        raise BadData(
            f"{data.name} has no picture with another person in it.",
            "Pass rows with image and answers, some with the attribute `of`: the id of the row that they were made "
            "from. vlmend data face_edit makes them of drawn people.",
        )
    return found


def _pairs(rows: Iterable[tuple[Hashable, One]]) -> list[tuple[One, One]]:
    held: defaultdict[Hashable, list[One]] = defaultdict(list)
    for group, one in rows:
        if group:
            held[group].append(one)
    return [pair for own in held.values() for pair in combinations(own, 2)]
