"""Pictures as numbers, for towers that are trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

__all__ = ["to_pixels"]


def to_pixels(pictures: Sequence[Image.Image]) -> Float[Tensor, "picture 3 height width"]:
    """The image processor's arithmetic for pictures of the right size already: 0 to 255 become -1 to 1."""
    raw = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return rearrange(raw.float() / 127.5 - 1, "n h w c -> n c h w")
