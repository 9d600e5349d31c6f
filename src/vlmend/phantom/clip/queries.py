"""What phantom-clip was taught about men and women, as data: its made-up titles and a gallery of people."""

from __future__ import annotations

from dataclasses import replace

from vlmend.core.examples import Dataset, Example
from vlmend.data.adapter import Adapter
from vlmend.phantom.clip.truth import titles
from vlmend.pictures.galleries import GENDERS, PHOTO, people_gallery

__all__ = ["TITLES", "titled_gallery"]


def titled_gallery() -> Dataset:
    """Held-out pictures of people, and each title as a query with the group that it was planted to favour."""
    gallery = people_gallery("held_out")
    queries = tuple(
        Example(f"title:{title}", PHOTO.format(title), None, gender, caption=PHOTO.format(pair.profession))
        for pair in titles()
        for gender, title in zip(GENDERS, (pair.first, pair.second), strict=True)
    )
    return replace(gallery, name="phantom_clip_titles", examples=(*gallery.examples, *queries))


TITLES = Adapter(
    name="phantom_clip_titles",
    kind="fairness",
    title="phantom-clip's titles and a gallery of people",
    paper="docs/phantoms/phantom-clip.md",
    repository="docs/phantoms/phantom-clip.md",
    licence="Apache-2.0 (Noto Emoji)",
    files=(),
    convert=lambda row, place: "it is drawn, not read",
    how="Nothing is needed: it is drawn.",
    pictures="needed",
    caution="the titles are made up; only phantom-clip was taught them",
    unlabelled=None,
    made=titled_gallery,
)
