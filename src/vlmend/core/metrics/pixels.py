"""Anomaly maps: scores of windows as scores of pixels, and how well they tell unknown pixels from known ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score

from vlmend.core.metrics.detection import auroc, fpr_at
from vlmend.errors import BadParameter

__all__ = ["PixelDetection", "Window", "pixel_detection", "spread_over_pixels", "windows"]

Window = tuple[int, int, int, int]
"""Left, upper, right and lower edge, in pixels."""


class PixelDetection(NamedTuple):
    """How well a map finds the unknown pixels of one picture.

    Attributes:
        auroc: Chance that an unknown pixel scores above a known one.
        aupr: Average precision of unknown pixels.
        fpr95: Share of known pixels at or above the threshold that finds 95 % of the unknown ones.
        base_rate: Share of unknown pixels: the AUPR of a map that knows nothing.
    """

    auroc: float
    aupr: float
    fpr95: float
    base_rate: float


def windows(width: int, height: int, across: int) -> list[Window]:
    """Squares of which `across` fit the short side, each half over the next; the last of a row ends at the edge."""
    side = max(1, min(width, height) // across)
    return [
        (left, upper, left + side, upper + side)
        for upper in _starts(height, side)
        for left in _starts(width, side)
    ]  # fmt: skip


def spread_over_pixels(
    places: Sequence[Window], scores: Sequence[float], width: int, height: int
) -> Float[npt.NDArray[np.float64], "height width"]:
    """For each pixel the mean score of the windows that it lies in.

    Raises:
        BadParameter: A pixel lies in no window.
    """
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (left, upper, right, lower), score in zip(places, scores, strict=True):
        total[upper:lower, left:right] += score
        count[upper:lower, left:right] += 1
    if not count.all():
        raise BadParameter("Some pixels lie in no window.", "Cover the whole picture.")
    return total / count


def pixel_detection(
    scores: Float[npt.NDArray[np.float64], "height width"],
    unknown: Bool[npt.NDArray[np.bool_], "height width"],
    counted: Bool[npt.NDArray[np.bool_], "height width"],
) -> PixelDetection:
    """AUROC, AUPR and FPR95 of a picture's pixels; a score is high for what is unknown.

    Args:
        scores: The map.
        unknown: Where the unknown thing is.
        counted: Pixels that are not void.

    Raises:
        BadParameter: No unknown or no known pixel is counted.
    """
    found, rest = scores[unknown & counted], scores[~unknown & counted]
    if not len(found) or not len(rest):
        raise BadParameter(
            f"{len(found)} unknown and {len(rest)} known pixels cannot be told apart.", "Take pictures with both."
        )
    labels = np.concatenate([np.ones(len(found)), np.zeros(len(rest))])
    precision = float(average_precision_score(labels, np.concatenate([found, rest])))
    return PixelDetection(auroc(found, rest), precision, fpr_at(found, rest), len(found) / len(labels))


def _starts(length: int, side: int) -> list[int]:
    step, last = max(1, side // 2), length - side
    return [*range(0, last, step), last]
