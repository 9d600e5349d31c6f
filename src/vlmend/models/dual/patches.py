"""Embeddings of the patches of pictures: what the head of a vision tower makes of each place but the first.

A tower of the CLIP kind reads a picture's embedding off its first place, by a norm and a projection. The same of any
other place is an embedding of the patch there. In training no loss ever reached these outputs of the last block, so
they lie less near to their texts than the picture's own.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.targets import Pixels
from vlmend.errors import AnatomyProblem
from vlmend.models.dual.towers import Towers

__all__ = ["patch_embeddings"]


@torch.no_grad()
def patch_embeddings(towers: Towers, pixels: Pixels) -> Float[Tensor, "image patch width"]:
    """Of length 1 each, float32 on the CPU, of the model without edits.

    Raises:
        AnatomyProblem: The tower is not of the CLIP kind.
    """
    model: Any = towers.model
    tower: Any = towers.vision
    head, norm = getattr(model, "visual_projection", None), getattr(tower, "post_layernorm", None)
    if head is None or norm is None:
        raise AnatomyProblem(
            f"The patches of {type(model).__name__} have no embedding: its vision tower has no norm and projection "
            "that read one place.\n",
            "Take a model of the CLIP kind, or leave the patches out (local=0).",
        )
    seen = pixels.black + pixels.values * pixels.span
    states = tower(**towers.placed({towers.pixels: seen, **pixels.rest})).last_hidden_state
    return normalize(head(norm(states[:, 1:])).float().cpu(), dim=2)
