"""Anchors beside pictures: one of each anchor's own, or three kinds of picture for fits that must not hang on one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Example
from vlmend.core.images import Image, noise_image
from vlmend.core.targets import ChatStates
from vlmend.methods.reading import Asking, read_states, with_image
from vlmend.pictures.pool import drawn

__all__ = ["read_beside", "with_own_pictures"]


def read_beside(
    target: ChatStates, anchors: Sequence[Example], image: Image, seed: int
) -> Float[Tensor, "image anchor layer width"]:
    """States beside I', noise, and a picture of its own for each anchor."""
    return torch.stack([
        read_states(target, anchors, with_image(image)),
        read_states(target, anchors, with_image(noise_image(target.image_side, seed))),
        read_states(target, anchors, with_own_pictures(anchors, seed)),
    ])  # fmt: skip


def with_own_pictures(anchors: Sequence[Example], seed: int) -> Asking:
    """Each request beside a drawn object of its own."""
    pictures = {
        anchor.id: Image.from_pixels(drawn("object", "train", seed, place).image)
        for place, anchor in enumerate(anchors)
    }
    return lambda anchor: Conversation.ask(anchor.prompt, pictures[anchor.id])
