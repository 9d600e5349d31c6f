"""Pictures that have a name: what dual encoders are calibrated, tuned and attacked on."""

from __future__ import annotations

from dataclasses import dataclass

from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.errors import BadData
from vlmend.pictures.galleries import PHOTO

__all__ = ["NamedPictures", "named_pictures"]


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
