"""Images as plain data: where the bytes are, and how to turn them into pixels safely.

Nothing is decoded until a model needs pixels, so a data set of a million images costs only
its paths. Corrupted images of CMRM (blank, noise) are made here, because every part needs them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote_to_bytes

import PIL.Image
import PIL.ImageFilter

from vlmend.core.picture_files import frames, opened, read_file, shown_alike, to_rgb
from vlmend.errors import BadImage

__all__ = ["Corrupt", "Image", "blank_image", "blurred_image", "corrupt_image", "noise_image"]

Corrupt = Literal["white", "black", "mean_colour", "noise"]
"""Content-free images I' of CMRM: uniform white, black or the processor's mean colour, or uniform noise."""


@dataclass(frozen=True)
class Image:
    """An encoded image: a file that is read when needed, or its bytes.

    Attributes:
        source: Path of the file, or the encoded bytes (PNG, JPEG, WebP, ...).
        name: What errors call it.
        outside: It lies outside of the folder of the data set that names it; an API gets it where that is allowed.
    """

    source: Path | bytes = field(repr=False)
    name: str = "image"
    outside: bool = False

    @classmethod
    def in_folder(cls, folder: Path, path: str) -> Image:
        """A file that a data set names; relative paths start at its folder."""
        place = folder / path
        try:
            outside = not place.resolve().is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):  # reading it will say what is wrong
            outside = False
        return cls(place, str(place), outside)

    @classmethod
    def from_path(cls, path: Path) -> Image:
        return cls(path, str(path))

    @classmethod
    def from_pixels(cls, pixels: PIL.Image.Image, name: str = "image") -> Image:
        """Hold a picture as lossless PNG bytes, packed fast rather than small."""
        buffer = io.BytesIO()
        pixels.save(buffer, format="PNG", compress_level=1)
        return cls(buffer.getvalue(), name)

    @classmethod
    def from_data_uri(cls, uri: str, name: str = "image") -> Image:
        """Read a `data:` URI, in base64 or percent-encoded, with or without parameters.

        Raises:
            BadImage: It holds no bytes that can be told.
        """
        try:
            head, comma, text = uri.partition(",")
            if not comma:
                raise ValueError("it has no comma before its content")
            content = unquote_to_bytes(text)
            if head.lower().endswith(";base64"):
                packed = b"".join(content.split())  # mail and notebooks break lines, some leave the padding out
                content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        except ValueError as problem:
            raise BadImage(
                f"{name}: the data URI cannot be read ({problem}).",
                "Send `data:image/png;base64,` and then the image in base64.",
            ) from problem
        return cls(content, name)

    def check_sent(self) -> None:
        """
        Raises:
            BadImage: It lies outside of the folder of the data set that names it, and would be sent to an API.
        """
        if self.outside:
            raise BadImage(
                f"{self.name} lies outside of the data's folder, so it is not sent to an API.",
                "Look at what the data names. To send such files: --send-outside (Inspect: -T send_outside=true).",
            )

    def to_data_uri(self) -> str:
        """The picture for model APIs, with its media type.

        The bytes as they are where every reader shows them alike, else as PNG of the pixels that `decode` gives.

        Raises:
            BadImage: The file cannot be read, or is no image.
        """
        content = self.content
        with opened(content, self.name) as picture:
            kind = PIL.Image.MIME.get(picture.format or "") if shown_alike(picture) else None
        if kind is None:
            kind, content = "image/png", Image.from_pixels(self.decode()).content
        return f"data:{kind};base64," + base64.b64encode(content).decode()

    @property
    def content(self) -> bytes:
        """The encoded bytes; those of a file are read anew each time, so that a large set costs its paths only.

        Raises:
            BadImage: The file cannot be read.
        """
        return self.source if isinstance(self.source, bytes) else read_file(self.source, self.name)

    @property
    def digest(self) -> str:
        """SHA-256 of the encoded bytes; a file that was changed since is read again.

        Raises:
            BadImage: The file cannot be read.
        """
        if isinstance(self.source, bytes):
            return self._digest
        try:
            held = self.source.stat()
        except (OSError, ValueError):
            return hashlib.sha256(self.content).hexdigest()  # which says what is wrong
        return _file_digest(self, self.source, held.st_mtime_ns, held.st_size)

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def frames(self) -> int:
        """How many frames or pages the file holds; the first is what `decode` gives.

        Raises:
            BadImage: The file cannot be read, or is no image.
        """
        with opened(self.content, self.name) as picture:
            return frames(picture)

    def decode(self) -> PIL.Image.Image:
        """Turn the image into 8-bit RGB pixels, as viewers show it (`picture_files.to_rgb`).

        Raises:
            BadImage: The bytes are no image that can be read, or more than may be.
        """
        with opened(self.content, self.name) as picture:
            return to_rgb(picture)


@lru_cache(maxsize=2**16)
def _file_digest(image: Image, path: Path, changed_ns: int, size: int) -> str:
    """By the file's state, so that one that was replaced has another."""
    return hashlib.sha256(image.content).hexdigest()


@lru_cache(maxsize=256)
def blurred_image(image: Image, share: float) -> Image:
    """The image behind a Gaussian blur whose radius is that share of its shorter side.

    Raises:
        BadImage: It cannot be decoded.
    """
    pixels = image.decode()
    return Image.from_pixels(pixels.filter(PIL.ImageFilter.GaussianBlur(share * min(pixels.size))), image.name)


def corrupt_image(kind: Corrupt, side: int, seed: int, mean: tuple[int, int, int] = (128, 128, 128)) -> Image:
    """A content-free image by name; `mean` is the colour of `mean_colour`, 0 to 255."""
    match kind:
        case "white":
            return blank_image(side, 255)
        case "black":
            return blank_image(side, 0)
        case "mean_colour":
            return Image.from_pixels(PIL.Image.new("RGB", (side, side), mean), "mean colour")
        case "noise":
            return noise_image(side, seed)


def blank_image(side: int, value: int = 255) -> Image:
    """A uniform square image; CMRM's *blank* corruption (white 255 unless told otherwise)."""
    return Image.from_pixels(PIL.Image.new("RGB", (side, side), (value, value, value)), "blank")


def noise_image(side: int, seed: int) -> Image:
    """A square of uniform random pixels; CMRM's *noise* corruption. Same seed, same pixels."""
    pixels = random.Random(f"noise:{seed}").randbytes(side * side * 3)
    return Image.from_pixels(PIL.Image.frombytes("RGB", (side, side), pixels), "noise")
