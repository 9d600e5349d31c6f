"""Logits of image-text pairs as probabilities, and how well they fit what is right."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from vlmend.core.targets import PairKind

__all__ = ["as_probabilities", "best_temperature", "brier", "nll"]

LIMITS = (0.01, 100.0)
"""Smallest and largest temperature that is looked for."""


def as_probabilities(logits: Float[Tensor, "image text"], kind: PairKind) -> Float[Tensor, "image text"]:
    """0 to 1: softmax over the texts, or the sigmoid of each pair."""
    return logits.softmax(1) if kind == "softmax" else logits.sigmoid()


def nll(logits: Float[Tensor, "image text"], right: Int[Tensor, " image"], kind: PairKind) -> Float[Tensor, " image"]:
    """Negative log-likelihood of the right text of each image; with sigmoids, the mean over its pairs."""
    if kind == "softmax":
        return cross_entropy(logits, right, reduction="none")
    wanted = one_hot(right, logits.shape[1]).to(logits.dtype)
    return binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)


def brier(logits: Float[Tensor, "image text"], right: Int[Tensor, " image"], kind: PairKind) -> Float[Tensor, " image"]:
    """Squared distance of the probabilities from 1 for the right text and 0 for the others.

    Summed over the texts, 0 to 2; with sigmoids the mean over the pairs, 0 to 1.

    Source: Brier, Monthly Weather Review 78 (1950), 1-3.
    """
    wanted = one_hot(right, logits.shape[1]).to(logits.dtype)
    squares = (as_probabilities(logits, kind) - wanted).square()
    return squares.sum(1) if kind == "softmax" else squares.mean(1)


def best_temperature(logits: Float[Tensor, "image text"], right: Int[Tensor, " image"], kind: PairKind) -> float:
    """The T within `LIMITS` at which logits / T have the least mean negative log-likelihood.

    It is convex in 1 / T, so there is one minimum; where every image is right, the smaller T the better.

    Source: Guo et al., ICML 2017, arXiv 1706.04599.
    """
    exact = logits.double()

    def loss(log_temperature: float) -> float:
        return float(nll(exact / math.exp(log_temperature), right, kind).mean())

    low, high = map(math.log, LIMITS)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)
