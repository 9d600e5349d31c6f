"""Whether one picture is a copy of another, and whether many pictures are copies of each other.

Pictures are compared as thumbnails of 16 x 16: small enough that blur and compression do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image
from jaxtyping import Bool, Float

__all__ = ["centred", "largest_clique", "thumbnails", "tiles_apart"]

SIDE = 16
TILES = 4
"""Tiles along a side: far apart in one tile is far apart, however much plain ground two pictures share."""

Array = npt.NDArray[np.float64]


def thumbnails(pictures: Sequence[PIL.Image.Image]) -> Float[np.ndarray, "picture 16 16 3"]:
    """Small copies of pictures, 0 (black) to 1."""
    small = [np.asarray(one.convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BOX)) for one in pictures]
    return np.stack(small).astype(np.float64) / 255 if small else np.zeros((0, SIDE, SIDE, 3))


def centred(small: Float[np.ndarray, "picture 16 16 3"]) -> Float[np.ndarray, "picture width"]:
    """Thumbnails less their mean colour, as vectors of length 1: the product of two is the cosine of the pictures.

    Brightness, tint and contrast do not count. A plain picture is a vector of zeros, alike to nothing.
    """
    flat = (small - small.mean(axis=(1, 2), keepdims=True)).reshape(len(small), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > 1e-6, flat / np.maximum(length, 1e-6), 0.0)


def tiles_apart(
    one: Float[np.ndarray, "16 16 3"], others: Float[np.ndarray, "picture 16 16 3"]
) -> Float[np.ndarray, " picture"]:
    """How far a thumbnail is from others: root mean square over a tile of 4 x 4, the farthest of the 16 tiles, 0 to 1.

    Carlini et al. 2023, arXiv 2301.13188, whose tiles are of 128 pixels of 512.
    """
    edge = SIDE // TILES
    squared = ((others - one) ** 2).reshape(len(others), TILES, edge, TILES, edge, 3)
    return np.sqrt(squared.mean(axis=(2, 4, 5)).max(axis=(1, 2)))


def largest_clique(near: Bool[np.ndarray, "picture picture"]) -> int:
    """How many pictures are at most near to each other, all to all; 1 where no two are, 0 of none.

    By trying (Bron and Kerbosch without pivots): for some dozen pictures.
    """
    links = [{k for k in np.flatnonzero(row).tolist() if k != place} for place, row in enumerate(near)]

    def grown(size: int, left: set[int]) -> int:
        best = size
        while left and size + len(left) > best:
            place = left.pop()
            best = max(best, grown(size + 1, left & links[place]))
        return best

    return grown(0, set(range(len(links))))
