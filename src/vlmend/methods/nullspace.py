"""Maps of rank one that are read where benign states have nothing: what null-space steering is made of.

With H_b and H_m the states of benign and harmful anchors (a row each), r a direction of refusal, and P = Q Q^T, Q the
right-singular vectors of H_b with the smallest singular values (AlphaSteer, arXiv 2506.07022):

    minimise over D   |H_m P D - 1 r^T|^2 + ridge |P D|^2,   then   h <- h + strength h P D,   P D = w r^T
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.edits import AffineMap
from vlmend.core.sites import Site
from vlmend.errors import BadParameter
from vlmend.methods.directions import doses

__all__ = ["check_map", "null_space_edits", "occupied", "ridge_weight"]

MARGIN = 1e-4
"""Singular values below this share of the largest are nothing: states are float32."""


def check_map(null_share: float, ridge: float) -> None:
    """Refuse parameters that give no map.

    Raises:
        BadParameter: They do.
    """
    if not (0 < null_share < 1 and ridge > 0):
        raise BadParameter(
            f"null_share={null_share:g} and ridge={ridge:g} give no map.",
            "null_share lies between 0 and 1, ridge above 0.",
        )


def null_space_edits(
    harmful: Float[Tensor, "harmful layer width"], benign: Float[Tensor, "benign layer width"],
    towards: Float[Tensor, "layer width"], layers: Sequence[int], *, null_share: float, ridge: float, strength: float,
    tokens: Literal["last_prompt", "prompt"],
) -> tuple[list[AffineMap], dict[str, float]]:  # fmt: skip
    """The map of every layer, read from the last prompt token, and its dose on the harmful anchors.

    Args:
        harmful, benign: States beside an image, of all layers from 0.
        towards: r, of all layers from 0.
    """
    edits: list[AffineMap] = []
    moved = torch.zeros(harmful.shape[:2])
    for layer in layers:
        weight = ridge_weight(harmful[:, layer], occupied(benign[:, layer], null_share), ridge)
        push = towards[layer]
        moved[:, layer] = abs(strength) * (harmful[:, layer] @ weight).abs() * push.norm()
        edit = AffineMap(
            Site("language", layer), weight[None], push[:, None], torch.zeros_like(push), strength,
            source="last_prompt", tokens=tokens, when="with_image",
        )  # fmt: skip
        edits.append(edit)
    return edits, doses(layers, moved, harmful)


def occupied(states: Float[Tensor, "state width"], null_share: float) -> Float[Tensor, "width held"]:
    """Orthonormal directions that are not null: all but the share along which the states are smallest.

    Fewer states than that hold fewer directions: what is exactly null never counts as occupied.
    """
    _, sizes, directions = torch.linalg.svd(states.double(), full_matrices=False)
    something = int((sizes > MARGIN * sizes[0]).sum())
    most = states.shape[1] - max(1, round(null_share * states.shape[1]))
    return directions[: min(something, most)].T.float()


def ridge_weight(
    states: Float[Tensor, "state width"], held: Float[Tensor, "width held"], ridge: float
) -> Float[Tensor, " width"]:
    """w of the ridge regression of 1 on what the states have outside the held directions.

    With F = H_m - H_m V V^T, which is H_m P, w = F^T (F F^T + ridge I)^-1 1: the formula above, since Y Y^T = F F^T.
    """
    free = (states - states @ held @ held.T).double()
    gram = free @ free.T + ridge * torch.eye(len(free), dtype=torch.float64)
    return (free.T @ torch.linalg.solve(gram, torch.ones(len(free), dtype=torch.float64))).float()
