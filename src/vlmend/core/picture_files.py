"""Picture files that nobody vouches for: read within bounds, decoded by few formats, turned into 8-bit RGB.

Whatever is wrong with one is a `BadImage`, whatever the decoder raises.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from vlmend.errors import BadImage, cause_of

__all__ = ["FORMATS", "MAX_BYTES", "MAX_PIXELS", "frames", "opened", "read_file", "shown_alike", "to_rgb"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""What is decoded. Others are refused unread: EPS, say, would start Ghostscript."""

MAX_BYTES = 256_000_000
"""A file with more bytes than this is refused before it is read."""

MAX_PIXELS = 64_000_000
"""An image with more pixels than this is refused before it is decoded (decompression bombs)."""


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a regular file.

    Raises:
        BadImage: It is missing, too large, or no regular file: a pipe would wait, a device never end.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise BadImage(f"{name}: this is no regular file.", "Name a picture in the data file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as problem:  # a NUL in a path is a ValueError
        raise BadImage(
            f"{name}: the image file cannot be read ({cause_of(problem)}).",
            "Check the path in the data file; relative paths start at the data file's folder.",
        ) from problem
    if len(content) > MAX_BYTES:
        raise BadImage(f"{name}: the file has more than {MAX_BYTES:,} bytes.", "Save the picture smaller.")
    return content


@contextmanager
def opened(content: bytes, name: str) -> Generator[PIL.Image.Image]:
    """The picture as Pillow opens it, its pixels not yet decoded.

    Raises:
        BadImage: The bytes are no picture of `FORMATS`, it is too large or too long, or the block cannot decode it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities of files that it reads all the same
            with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                _check_size(picture.size, name)
                yield picture
    except BadImage:
        raise
    except PIL.UnidentifiedImageError as problem:
        raise BadImage(
            f"{name}: this is not an image that can be read (none of {', '.join(FORMATS)}).",
            "It may be cut off or of another kind; open it in a viewer and save it as PNG.",
        ) from problem
    except Exception as problem:  # decoders raise what they like, RuntimeError and struct.error included
        raise BadImage(
            f"{name}: this is not an image that can be read ({cause_of(problem)}).",
            "It may be cut off or damaged; open it in a viewer and save it as PNG.",
        ) from problem


def shown_alike(picture: PIL.Image.Image) -> bool:
    """Whether whoever reads the file sees the same: a common format, upright, one frame, 8 bits, no transparency."""
    common = picture.format in ("PNG", "JPEG", "WEBP")
    plain = picture.mode in ("1", "L", "P", "RGB") and "transparency" not in picture.info
    return common and plain and frames(picture) == 1 and _orientation(picture) == 1


def frames(picture: PIL.Image.Image) -> int:
    """How many pictures the file holds, of which the first counts."""
    return getattr(picture, "n_frames", 1)


def to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The first frame as viewers show it: turned upright, 16 bits scaled to 8, transparency laid over white.

    Raises:
        ValueError: Its numbers have no range that would say what is white.
    """
    picture.load()
    upright = _upright(picture)
    if upright.mode in ("I", "F"):
        low, high = upright.getextrema()
        raise ValueError(f"its numbers, {low:g} to {high:g}, have no range that says what is white; save it as 8 bit")
    if upright.mode.startswith("I;16"):
        upright = _eight_bits(upright)
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        ground = PIL.Image.new("RGBA", upright.size, "white")
        upright = PIL.Image.alpha_composite(ground, upright.convert("RGBA"))
    return upright.convert("RGB")


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadImage(
            f"{name}: the image has {width}x{height} pixels, more than {MAX_PIXELS:,}.",
            "Make it smaller; models read far less than that.",
        )


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Turned as its EXIF says."""
    return picture if _orientation(picture) == 1 else PIL.ImageOps.exif_transpose(picture)


def _orientation(picture: PIL.Image.Image) -> int:
    """1 is upright; damaged EXIF says nothing."""
    try:
        said = picture.getexif().get(PIL.ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return said if said in range(1, 9) else 1


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """16-bit grey as 8-bit grey, 65,535 being white; the grey that stands for transparency becomes white."""
    grey = np.asarray(picture).astype(np.uint32)
    clear = picture.info.get("transparency")
    scaled = np.where(grey == clear, 255, (grey + 128) // 257)
    return PIL.Image.fromarray(scaled.astype(np.uint8))
