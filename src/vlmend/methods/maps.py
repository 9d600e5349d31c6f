"""Linear maps of embeddings that more than one method is made of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["drawn_together"]


def drawn_together(differences: Float[Tensor, "pair width"], calibration: float) -> Float[Tensor, "width width"]:
    """G = (I + lambda M)^-1, M the mean of d d^T over the differences d of pairs that should coincide; in float64.

    It minimises |G - I|^2 + lambda * mean |G d|^2 (Chuang et al. 2023, arXiv 2302.00070, without its projection).
    """
    gaps = differences.double()
    eye = torch.eye(gaps.shape[1], dtype=torch.float64)
    return torch.linalg.inv(eye + calibration * gaps.T @ gaps / len(gaps))
