"""Who is in a data set: association of words, and skin as a pixel statistic."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Association", "associations", "ita", "npmi"]

Array = npt.NDArray[np.float64]

MIDDLE = 50.0
"""Lightness from which the individual typology angle is measured."""

D65 = np.array([0.95047, 1.0, 1.08883])
"""White of sRGB, as X, Y, Z."""

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""From linear sRGB."""


class Association(NamedTuple):
    """Normalised pointwise mutual information of each row with each column.

    Attributes:
        value: -1 never together, 0 independent, 1 only together; NaN where a row or column is empty.
        low, high: 95 % percentile interval over resampled mentions; NaN where resampling shows no spread.

    Shape:
        "row column" each.
    """

    value: Array
    low: Array
    high: Array


def npmi(counts: Array) -> Array:
    """ln(p(r, c) / (p(r) p(c))) / -ln p(r, c) of a table of counts, or of many tables at once.

    Source: Bouma, GSCL 2009.

    Shape:
        counts "*tables row column"; result the same.
    """
    total = counts.sum((-2, -1), keepdims=True)
    rows, columns = counts.sum(-1, keepdims=True), counts.sum(-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = counts / total
        value = np.log(joint / (rows * columns / total**2)) / -np.log(joint)
    value = np.where((counts == 0) & (rows > 0) & (columns > 0), -1.0, value)
    return np.where((rows == 0) | (columns == 0), math.nan, value)


def associations(counts: Array, *, seed: int, draws: int = 1000) -> Association:
    """nPMI of a table with intervals: mentions are drawn again from the table's own shares.

    Mentions count as independent of each other.

    Args:
        counts: Whole numbers, "row column".
        seed: Of the draws.
        draws: Resamples.
    """
    n = int(counts.sum())
    if n == 0:
        empty = np.full(counts.shape, math.nan)
        return Association(empty, empty, empty)
    drawn = np.random.default_rng(seed).multinomial(n, (counts / n).ravel(), size=draws)
    values = np.ma.masked_invalid(npmi(drawn.reshape(draws, *counts.shape).astype(np.float64)))
    spread = np.asarray(values.max(0).filled(0) - values.min(0).filled(0)) > 0
    filled = values.filled(math.nan)
    low, high = (
        np.array([[_quantile(filled[:, r, c], q) for c in range(counts.shape[1])] for r in range(counts.shape[0])])
        for q in (0.025, 0.975)
    )
    return Association(npmi(counts), np.where(spread, low, math.nan), np.where(spread, high, math.nan))


def ita(pixels: npt.NDArray[np.uint8]) -> float:
    """Individual typology angle of a patch of skin, in degrees: atan((L* - 50) / b*), the median over its pixels.

    A statistic of pixels under the light of the picture, from about 55 (light) to below -30 (dark); never a race.

    Source: Chardon, Cretois, Hourseau, International Journal of Cosmetic Science 13, 1991.

    Shape:
        pixels "*place 3", sRGB.
    """
    share = pixels.reshape(-1, 3).astype(np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = linear @ TO_XYZ.T / D65
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, b = 116 * f[:, 1] - 16, 200 * (f[:, 1] - f[:, 2])
    return float(np.median(np.degrees(np.arctan2(lightness - MIDDLE, b))))


def _quantile(values: Array, q: float) -> float:
    there = values[~np.isnan(values)]
    return float(np.quantile(there, q)) if len(there) else math.nan
