"""How large an image processor makes a picture: the pixels that count are those after its resize."""

from __future__ import annotations

from typing import Any

from transformers.image_utils import SizeDict

from vlmend.core.picture_files import MAX_PIXELS
from vlmend.errors import BadImage

__all__ = ["check_resized", "short_side"]


def short_side(processor: Any) -> int | None:
    """The size to which an image processor brings the short side, where the long one just follows; None elsewhere.

    Those that fix both sides, bound the long one or the sum, or cut tiles take any shape.
    """
    size = getattr(processor, "size", None)
    if not getattr(processor, "do_resize", True) or not isinstance(size, SizeDict):
        return None
    given = {key: value for key, value in dict(size).items() if value is not None}
    return given.get("shortest_edge") if set(given) == {"shortest_edge"} else None


def check_resized(size: tuple[int, int], side: int | None, name: str) -> None:
    """Refuse a picture that would be blown up: a strip of 157 bytes can become gigabytes.

    Args:
        size: Width and height as the file has them.
        side: From `short_side`.
        name: What to call the picture.

    Raises:
        BadImage: It would have more than `MAX_PIXELS`.
    """
    if side is None:
        return
    long = side * max(size) // min(size)
    if side * long > MAX_PIXELS:
        raise BadImage(
            f"{name}: the image has {size[0]}x{size[1]} pixels; the model brings its short side to {side}, and "
            f"{side}x{long} pixels are more than {MAX_PIXELS:,}.",
            "Crop or pad it.",
        )
