"""The interpreter of edits of what is asked: words, and images before the processor sees them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache, partial

import PIL.Image
from PIL import ImageFilter

from vlmend.core.conversation import Conversation
from vlmend.core.edits import Edit, FilterImage, RewritePrompt, ShowExamples
from vlmend.core.images import Image

__all__ = ["filtered", "forget_filtered", "rewritten"]

KEPT = 256
"""Filtered images kept: an image is asked about more than once."""


def rewritten(edits: Sequence[Edit], conversation: Conversation) -> Conversation:
    """A request in the words and with the images that the edits give it."""
    for edit in edits:
        if isinstance(edit, RewritePrompt | ShowExamples):
            conversation = edit.put(conversation)
        elif isinstance(edit, FilterImage) and conversation.has_image:
            conversation = conversation.through(partial(filtered, edit))
    return conversation


def filtered(edit: FilterImage, image: Image) -> Image:
    """The image behind the filter.

    Raises:
        BadImage: It cannot be decoded.
    """
    return _filtered(edit.filter, edit.amount, image, image.digest)


def forget_filtered() -> None:
    """Let go of the filtered images that are kept."""
    _filtered.cache_clear()


@lru_cache(KEPT)
def _filtered(kind: str, amount: float, image: Image, digest: str) -> Image:
    """`digest` is there for the cache: a file may hold another image by now."""
    pixels = image.decode()
    match kind:
        case "jpeg":
            buffer = io.BytesIO()
            pixels.save(buffer, format="JPEG", quality=round(amount))
            return Image(buffer.getvalue(), image.name)
        case "blur":
            return Image.from_pixels(pixels.filter(ImageFilter.GaussianBlur(amount)), image.name)
        case "median":
            return Image.from_pixels(pixels.filter(ImageFilter.MedianFilter(round(amount))), image.name)
        case "bits":
            return Image.from_pixels(_in_steps(pixels, 2 ** round(amount)), image.name)
        case _:
            raise AssertionError(kind)


def _in_steps(pixels: PIL.Image.Image, steps: int) -> PIL.Image.Image:
    """Each channel rounded to one of so many even steps from 0 to 255."""
    table = [round(round(value / 255 * (steps - 1)) * 255 / (steps - 1)) for value in range(256)]
    return pixels.point(table * 3)
