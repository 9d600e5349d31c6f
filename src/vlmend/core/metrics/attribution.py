"""Heat maps over a picture: how much of one lies in a region, and whether it can be believed.

A map says of each pixel how much it speaks for what is explained; what speaks against it is negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int
from scipy.stats import spearmanr

from vlmend.errors import BadParameter

__all__ = [
    "CELLS", "cell_means", "cells_of", "centre_map", "completeness_error", "curve_area", "mass_share", "points_at",
    "rank_correlation", "spread_cells",
]  # fmt: skip

Map = Float[npt.NDArray[np.float64], "height width"]
Region = Bool[npt.NDArray[np.bool_], "height width"]

CELLS = 8
"""Cells along each side of a picture in which maps are compared and parts of it are hidden."""

SIGMA = 0.25
"""Standard deviation of the centre map, as a share of each side."""


def mass_share(found: Map, region: Region, counted: Region | None = None) -> float:
    """Share of what speaks for the score that lies in a region, 0 to 1; NaN where nothing does.

    Args:
        found: The map; only its positive part is evidence for the score.
        region: Where the person is.
        counted: Pixels that belong to the picture; all unless given (a processor may pad).
    """
    mass = np.clip(found, 0, None) * (1 if counted is None else counted)
    total = float(mass.sum())
    return float(mass[region].sum()) / total if total > 0 else math.nan


def points_at(found: Map, region: Region) -> bool:
    """Whether the (first) largest value lies in the region: the pointing game of Zhang et al., ECCV 2016."""
    return bool(region.flat[int(found.argmax())])


def centre_map(height: int, width: int) -> Map:
    """A Gaussian in the middle: what a map looks like that knows where photographers put people, and nothing else."""
    y, x = (((np.arange(side) + 0.5) / side - 0.5) / SIGMA for side in (height, width))
    return np.exp(-0.5 * (y[:, None] ** 2 + x[None, :] ** 2))


def completeness_error(total: float, score: float, baseline: float) -> float:
    """|sum of the attributions - (f(x) - f(baseline))| / |f(x) - f(baseline)|; infinite where only the latter is 0.

    Sundararajan, Taly and Yan, ICML 2017, arXiv 1703.01365: integrated gradients are complete.
    """
    change = score - baseline
    missed = abs(total - change)
    return missed / abs(change) if change else (math.inf if missed else 0.0)


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's rank correlation of two maps, -1 to 1; NaN where one of them is flat."""
    if not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return math.nan
    found: Any = spearmanr(one.ravel(), other.ravel())
    return float(found.statistic)


def cells_of(height: int, width: int) -> Int[npt.NDArray[np.int64], "height width"]:
    """The number of the cell that each pixel lies in, row by row; fewer cells than `CELLS` a side of tiny pictures."""
    down, across = min(CELLS, height), min(CELLS, width)
    y, x = np.arange(height) * down // height, np.arange(width) * across // width
    return y[:, None] * across + x[None, :]


def cell_means(found: Map) -> Float[npt.NDArray[np.float64], " cell"]:
    """The mean of a map in each cell, in their order."""
    cells = cells_of(*found.shape).ravel()
    return np.bincount(cells, found.ravel()) / np.bincount(cells)


def spread_cells(chosen: Sequence[int], height: int, width: int) -> Region:
    """Where these cells are."""
    return np.isin(cells_of(height, width), list(chosen))


def curve_area(values: Sequence[float]) -> float:
    """Mean height of a curve through evenly spaced points (trapezoids).

    Raises:
        BadParameter: Fewer than two points.
    """
    if len(values) < 2:
        raise BadParameter(f"A curve has two points or more, not {len(values)}.", "Pass all of its points.")
    return float(np.trapezoid(np.asarray(values, np.float64)) / (len(values) - 1))
