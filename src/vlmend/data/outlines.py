"""What a row tells of the objects in its picture: name, colour and outline of each, as JSON in the attribute `objects`.

Outlines are those of COCO: polygons, or run lengths that are not compressed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw
from pydantic import BaseModel, TypeAdapter, ValidationError

from vlmend.core.examples import Example
from vlmend.errors import BadData

__all__ = ["OBJECTS", "Mask", "Outlined", "RunLengths", "objects_of", "run_lengths", "told"]

OBJECTS = "objects"
"""Name of the attribute."""

Mask = NDArray[np.bool_]


class RunLengths(BaseModel):
    """COCO's uncompressed run lengths: pixels column by column, outside and inside in turn, the first run outside.

    Attributes:
        size: Height and width.
        counts: Pixels of each run.
    """

    size: tuple[int, int]
    counts: list[int]


class Outlined(BaseModel):
    """One object of a picture: its name and colour as the caption has them, and its outline."""

    name: str
    colour: str
    segmentation: RunLengths | list[list[float]]

    def mask(self, width: int, height: int) -> Mask:
        """Which pixels of a picture are the object's, "height width".

        Raises:
            BadData: The outline is one of a picture of another size, or holds no pixel.
        """
        if isinstance(self.segmentation, list):
            drawn = PIL.Image.new("1", (width, height))
            for polygon in self.segmentation:
                ImageDraw.Draw(drawn).polygon(polygon, fill=1)
            mask = np.asarray(drawn)
        elif self.segmentation.size != (height, width) or sum(self.segmentation.counts) != height * width:
            raise BadData(
                f"The outline of {self.name} is one of a picture of another size.", f"This one is {width} x {height}."
            )
        else:
            counts = self.segmentation.counts
            mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
        if not mask.any():
            raise BadData(f"The outline of {self.name} holds no pixel.", "Outline what is to be seen.")
        return mask


EVERY = TypeAdapter(list[Outlined])


def objects_of(row: Example) -> list[Outlined]:
    """The outlined objects of a row; none where it tells of none.

    Raises:
        BadData: What it tells is not of the form that this module's docstring says.
    """
    try:
        return EVERY.validate_json(row.attributes.get(OBJECTS, "[]"))
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or OBJECTS
        raise BadData(f"The objects of {row.id} cannot be read ({place}: {first['msg']}).", "See biaug.") from problem


def told(objects: Sequence[Outlined]) -> str:
    """Objects as the attribute holds them."""
    return EVERY.dump_json(list(objects)).decode()


def run_lengths(mask: Mask) -> RunLengths:
    """A mask, "height width", as run lengths."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return RunLengths(size=mask.shape, counts=[0, *counts] if flat[0] else counts)
