"""Pushes that grow with what a direction says of the state, from nothing up to a largest."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.edits import ModuleEdit
from vlmend.core.sites import Site

__all__ = ["ramp"]


def ramp(
    site: Site, read: Float[Tensor, " width"], start: float, most: float, write: Float[Tensor, " width"],
    strength: float,
) -> ModuleEdit:  # fmt: skip
    """h <- h + strength * clamp(read . h - start, 0, most) * write, at the last prompt token of requests with an image.

    As a module of two rectified units: clamp(z, 0, most) = relu(z) - relu(z - most).
    """
    return ModuleEdit(
        site, torch.stack([read, read]), torch.tensor([-start, -start - most]), torch.stack([write, -write], dim=1),
        torch.zeros_like(write), strength, "last_prompt", "with_image",
    )  # fmt: skip
