"""Pictures that have a name: what dual encoders are calibrated, tuned and attacked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData
from vlmend.pictures.galleries import PHOTO

__all__ = ["NamedPictures", "Texts", "named_pictures", "pairs_in", "text_of"]


@dataclass(frozen=True)
class NamedPictures:
    """Pictures, and which of the names is right for each.

    Attributes:
        images: The pictures.
        right: Place of the right name of each.
        names: All names, sorted.
    """

    images: tuple[Image, ...]
    right: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """The names in the frame of every text here."""
        return [PHOTO.format(name) for name in self.names]


def named_pictures(data: Dataset) -> NamedPictures:
    """The rows that have an image and a right answer; the first answer is the name.

    Raises:
        BadData: There are fewer than two names.
    """
    rows = [(row.image, row.answers[0]) for row in data.examples if row.image is not None and row.answers]
    names = tuple(sorted({name for _, name in rows}))
    if len(names) < 2:
        raise BadData(
            f"{data.name} has pictures of {len(names)} known things.",
            "Pass rows with image and answers, the name of what it shows, of two things or more.",
        )
    places = {name: place for place, name in enumerate(names)}
    return NamedPictures(tuple(image for image, _ in rows), tuple(places[name] for _, name in rows), names)


@dataclass(frozen=True)
class Texts(NamedPictures):
    """Pictures whose names are whole texts."""

    @property
    def texts(self) -> list[str]:
        """The texts as they are."""
        return list(self.names)


def text_of(row: Example) -> str:
    """What a picture is paired with: its caption, else its name in the frame of every text here, else nothing."""
    return row.caption or (PHOTO.format(row.answers[0]) if row.answers else "")


def pairs_in(rows: Sequence[Example]) -> Texts:
    """The pairs of rows that have a picture and a text."""
    held = [(row.image, text_of(row)) for row in rows if row.image is not None and text_of(row)]
    texts = tuple(dict.fromkeys(text for _, text in held))
    places = {text: place for place, text in enumerate(texts)}
    return Texts(tuple(image for image, _ in held), tuple(places[text] for _, text in held), texts)
