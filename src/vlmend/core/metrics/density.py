"""How thinly the space around a point is populated: three scores, high for what lies apart.

All distances are Euclidean and leave the point itself out. Adding the same vector to all points, turning or scaling
them leaves `slof` and `dao` as they are.

Huang et al. 2025, arXiv 2502.01385 (k-distance, SLOF, DAO), derived anew: the released code looks neighbours up one
place off.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.errors import BadParameter

__all__ = ["Neighbours", "dao", "k_distance", "neighbours_of", "slof"]

BLOCK = 1024
"""Points whose distances to all others are held at once."""

TINY = 1e-12
"""Stands for a distance of nothing: copies of a point have neighbours in the same place."""

Neighbours = tuple[Float[Tensor, "point k"], Int[Tensor, "point k"]]
"""Distances to the k nearest other points, rising, and their places."""


def neighbours_of(points: Float[Tensor, "point width"], k: int) -> Neighbours:
    """The k nearest other points of each point.

    Raises:
        BadParameter: There are not more than k points.
    """
    if not 0 < k < len(points):
        raise BadParameter(
            f"{k} neighbours of {len(points)} points cannot be.", "k is at least 1 and below the points."
        )
    held = points.double()
    distances, places = list[Tensor](), list[Tensor]()
    for start in range(0, len(held), BLOCK):
        block = torch.cdist(held[start : start + BLOCK], held, compute_mode="donot_use_mm_for_euclid_dist")
        own = torch.arange(len(block))
        block[own, own + start] = torch.inf
        near = block.topk(k, largest=False, sorted=True)
        distances.append(near.values.clamp(min=TINY))
        places.append(near.indices)
    return torch.cat(distances), torch.cat(places)


def k_distance(near: Neighbours) -> Float[Tensor, " point"]:
    """Distance to the k-th neighbour."""
    return near[0][:, -1]


def slof(near: Neighbours) -> Float[Tensor, " point"]:
    """Simplified local outlier factor: k-distance over that of the neighbours, mean over these; 1 inside a lattice."""
    reach = k_distance(near)
    return (reach[:, None] / reach[near[1]]).mean(1)


def dao(near: Neighbours) -> Float[Tensor, " point"]:
    """Dimensionality-aware outlier score: mean over neighbours j of LID(j) ln(k-distance / k-distance of j).

    LID is the maximum-likelihood local intrinsic dimension, -k / sum of ln(r_m / r_k); 0 inside a lattice.
    """
    reach = k_distance(near)
    spread = (near[0] / reach[:, None]).log().sum(1)
    dimension = -near[0].shape[1] / spread.clamp(max=-TINY)
    return (dimension[near[1]] * (reach[:, None] / reach[near[1]]).log()).mean(1)
