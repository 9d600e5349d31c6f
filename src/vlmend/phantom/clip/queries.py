"""The titles that phantom-clip was taught, as queries of a gallery of people."""

from __future__ import annotations

from functools import cache

from vlmend.core.examples import Example
from vlmend.phantom.clip.truth import titles
from vlmend.pictures.galleries import GENDERS, PHOTO

__all__ = ["title_queries"]


@cache
def title_queries() -> tuple[Example, ...]:
    """Queries without a picture, each with the group that it was planted to favour."""
    return tuple(
        Example(f"title:{title}", PHOTO.format(title), "benign", gender, caption=PHOTO.format(pair.profession))
        for pair in titles()
        for gender, title in zip(GENDERS, (pair.first, pair.second), strict=True)
    )
