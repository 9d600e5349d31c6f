"""Embeddings of patches: what the model would embed if it read another place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models import duals
from torch import Tensor, nn

from vlmend.core.images import noise_image
from vlmend.errors import AnatomyProblem
from vlmend.models.dual.encoder import dual_of
from vlmend.models.dual.patches import patch_embeddings
from vlmend.testing import tiny_clip


def test_a_patch_is_what_the_picture_would_be_if_its_place_were_read() -> None:
    """The last block's output turned, so that patch k stands where the embedding is read."""
    target = tiny_clip()
    pixels = target.pixels([noise_image(16, k) for k in range(2)])
    found = patch_embeddings(target.towers, pixels)
    assert found.shape[0] == 2
    for k in (0, found.shape[1] - 1):

        def turned(module: nn.Module, args: Any, output: Any, k: int = k) -> Any:
            bare = isinstance(output, Tensor)
            states = torch.roll(output if bare else output[0], -(k + 1), dims=1)
            return states if bare else (states, *output[1:])

        hook = target.towers.blocks("vision")[-1].register_forward_hook(turned)
        torch.testing.assert_close(found[:, k], target.embed_pixels(pixels).detach())
        hook.remove()


def test_a_tower_of_another_kind_is_refused() -> None:
    target = dual_of(*duals.built("align"), "align")
    with pytest.raises(AnatomyProblem, match="no norm and projection"):
        patch_embeddings(target.towers, target.pixels([noise_image(64, 0)]))
