"""A picture changed a little: what a model that generalises embeds much alike."""

from __future__ import annotations

import PIL.Image
from PIL import ImageEnhance, ImageOps

__all__ = ["variants"]

CROP, TURN, DARKER = 0.1, 15, 0.7
"""Share cut from each side, degrees, and factor of brightness."""


def variants(picture: PIL.Image.Image) -> list[PIL.Image.Image]:
    """The picture mirrored, cropped, turned and darkened, each at its own size."""
    width, height = picture.size
    inner = (round(CROP * width), round(CROP * height), round((1 - CROP) * width), round((1 - CROP) * height))
    return [
        ImageOps.mirror(picture), picture.crop(inner).resize(picture.size),
        picture.rotate(TURN, PIL.Image.Resampling.BICUBIC), ImageEnhance.Brightness(picture).enhance(DARKER),
    ]  # fmt: skip
