"""The gap between the images and the texts of a dual encoder: its vector, what chance gives, what moving it does.

With unit-length embeddings i of images and t of their texts the gap is g = mean(i) - mean(t); its size |g| lies between
0 and 2 (Liang et al., NeurIPS 2022, arXiv 2203.02053).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["gap_floor", "gap_shares", "moved", "told_apart"]

Embedded = Float[Tensor, "pair width"]

FLOOR_DRAWS = 200
FOLDS = 5


def gap_shares(images: Embedded, texts: Embedded) -> Float[Tensor, " pair"]:
    """What each pair adds to the size of the gap: (i - t) . g / |g|, whose mean is |g|; 0 throughout where g is 0."""
    apart = images - texts
    return apart @ normalize(apart.mean(0), dim=0)


def gap_floor(images: Embedded, texts: Embedded, *, seed: int) -> float:
    """The mean size of the gap where image and text of each pair are swapped by a coin: what is left without a gap."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (FLOOR_DRAWS, len(images)), generator=generator).to(images) * 2 - 1
    return float((signs @ (images - texts) / len(images)).norm(dim=1).mean())


def moved(images: Embedded, texts: Embedded, factor: float) -> tuple[Embedded, Embedded]:
    """Both clouds moved along the gap by half of (factor - 1) g, images one way and texts the other, at length 1 again.

    At factor 0 the means met before lengths were brought back to 1; afterwards they do so nearly.
    """
    half = (factor - 1) / 2 * (images.mean(0) - texts.mean(0))
    return normalize(images + half, dim=1), normalize(texts - half, dim=1)


def told_apart(images: Embedded, texts: Embedded, *, seed: int) -> Float[Tensor, " pair"]:
    """Share of the two of each pair that a linear probe tells right, fitted on the other pairs (5 folds); NaN below 5.

    Source: scikit-learn `LogisticRegression`.
    """
    count = len(images)
    if count < FOLDS:
        return torch.full((count,), math.nan)
    from sklearn.linear_model import LogisticRegression

    rows = torch.cat([images, texts]).double().numpy()
    kinds, folds = np.repeat([1, 0], count), np.random.default_rng(seed).permutation(count) % FOLDS
    right = np.zeros(2 * count)
    for fold in range(FOLDS):
        inside = np.tile(folds == fold, 2)
        probe = LogisticRegression(max_iter=1000).fit(rows[~inside], kinds[~inside])
        right[inside] = probe.predict(rows[inside]) == kinds[inside]
    return torch.from_numpy(right.reshape(2, count).mean(0))
