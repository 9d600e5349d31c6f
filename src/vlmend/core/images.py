"""Images as plain data: where the bytes are, and how to turn them into pixels safely.

Nothing is decoded until a model needs pixels, so a data set of a million images costs only
its paths. Corrupted images of CMRM (blank, noise) are made here, because every part needs them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import warnings
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import PIL.Image

from vlmend.errors import BadImage

__all__ = ["MAX_PIXELS", "Corrupt", "Image", "blank_image", "corrupt_image", "noise_image"]

Corrupt = Literal["white", "black", "mean_colour", "noise"]
"""Content-free images I' of CMRM: uniform white, black or the processor's mean colour, or uniform noise."""

MAX_PIXELS = 64_000_000
"""An image with more pixels than this is refused before it is decoded (decompression bombs)."""


@dataclass(frozen=True)
class Image:
    """An encoded image: a file that is read when needed, or its bytes.

    Attributes:
        source: Path of the file, or the encoded bytes (PNG, JPEG, WebP, ...).
        name: What errors call it.
    """

    source: Path | bytes = field(repr=False)
    name: str = "image"

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
        """Read a `data:image/...;base64,` URI, as chat APIs carry images."""
        try:
            return cls(base64.b64decode(uri.split(",", 1)[1], validate=True), name)
        except (IndexError, ValueError) as problem:
            raise BadImage(
                f"{name}: the data URI cannot be read ({problem}).",
                "Send `data:image/png;base64,` and then the image in base64.",
            ) from problem

    def to_data_uri(self) -> str:
        """The bytes with their true media type, for model APIs.

        Raises:
            BadImage: The file cannot be read, or is no image.
        """
        try:
            with PIL.Image.open(io.BytesIO(self.content)) as opened:
                kind = opened.get_format_mimetype() or "image/png"
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as problem:
            raise BadImage(
                f"{self.name} is no image that can be read ({problem}).", "Replace or remove it."
            ) from problem
        return f"data:{kind};base64," + base64.b64encode(self.content).decode()

    @property
    def content(self) -> bytes:
        """The encoded bytes; those of a file are read anew each time, so that a large set costs its paths only.

        Raises:
            BadImage: The file cannot be read.
        """
        if isinstance(self.source, bytes):
            return self.source
        try:
            return self.source.read_bytes()
        except OSError as problem:
            raise BadImage(
                f"{self.name}: the image file cannot be read ({problem.strerror}).",
                "Check the path in the data file; relative paths start at the data file's folder.",
            ) from problem

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
        except OSError:
            return hashlib.sha256(self.content).hexdigest()  # which says what is wrong
        return _file_digest(self, self.source, held.st_mtime_ns, held.st_size)

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def decode(self) -> PIL.Image.Image:
        """Turn the image into RGB pixels; transparency is laid over white.

        Raises:
            BadImage: The bytes are no image, are cut off, or hold more than `MAX_PIXELS`.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
                opened = PIL.Image.open(io.BytesIO(self.content))
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise BadImage(
                    f"{self.name}: the image has {width}x{height} pixels, more than {MAX_PIXELS:,}.",
                    "Make it smaller; models read far less than that.",
                )
            opened.load()
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as problem:
            raise BadImage(
                f"{self.name}: this is not an image that can be read ({problem}).",
                "It may be cut off or of another kind; open it in a viewer and save it as PNG.",
            ) from problem
        if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
            ground = PIL.Image.new("RGBA", opened.size, "white")
            opened = PIL.Image.alpha_composite(ground, opened.convert("RGBA"))
        return opened.convert("RGB")


@lru_cache(maxsize=2**16)
def _file_digest(image: Image, path: Path, changed_ns: int, size: int) -> str:
    """By the file's state, so that one that was replaced has another."""
    return hashlib.sha256(image.content).hexdigest()


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
