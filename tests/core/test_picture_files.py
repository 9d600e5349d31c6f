"""Pictures as people have them: each gives the pixels that viewers show, or one `BadImage`."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core import picture_files
from vlmend.core.images import Image, noise_image
from vlmend.errors import BadImage, cause_of

SOURCE = noise_image(24, 1).decode().crop((0, 0, 24, 16))
ORIENTATION = 0x0112
STORED: dict[int, Callable[[PIL.Image.Image], PIL.Image.Image]] = {
    1: lambda shown: shown,
    2: lambda shown: shown.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda shown: shown.transpose(PIL.Image.Transpose.ROTATE_180),
    4: lambda shown: shown.transpose(PIL.Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda shown: shown.transpose(PIL.Image.Transpose.TRANSPOSE),
    6: lambda shown: shown.transpose(PIL.Image.Transpose.ROTATE_90),
    7: lambda shown: shown.transpose(PIL.Image.Transpose.TRANSVERSE),
    8: lambda shown: shown.transpose(PIL.Image.Transpose.ROTATE_270),
}
"""How a camera stores what a viewer is to show, by the tag of EXIF."""


def encoded(picture: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image(content).decode())


def thin(width: int, height: int) -> bytes:
    return encoded(PIL.Image.new("1", (width, height)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turned", STORED)
def test_a_picture_is_seen_as_its_orientation_says(kind: str, turned: int) -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = turned
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = encoded(STORED[turned](SOURCE), kind, exif=exif, **options)
    assert np.array_equal(pixels(content), np.asarray(SOURCE))
    sent = Image.from_data_uri(Image(content).to_data_uri())
    with PIL.Image.open(io.BytesIO(sent.content)) as untold:  # a reader that knows nothing of EXIF
        assert np.array_equal(np.asarray(untold.convert("RGB")), np.asarray(SOURCE))


def test_damaged_exif_says_nothing() -> None:
    content = encoded(SOURCE, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert np.array_equal(pixels(content), np.asarray(SOURCE))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(mode: str, kind: str) -> None:
    """65,535 is white: 0, 257 and 65,535 are 0, 1 and 255; 128 rounds to 0 and 129 to 1, 32,896 / 257 is 128."""
    grey = np.array([[0, 257, 65_535, 128, 129, 32_896]], dtype=">u2" if mode == "I;16B" else "<u2")
    content = encoded(PIL.Image.frombytes(mode, (6, 1), grey.tobytes()), kind)
    assert pixels(content)[0, :, 0].tolist() == [0, 1, 255, 0, 1, 128]


def test_the_grey_that_stands_for_transparency_becomes_white() -> None:
    grey = PIL.Image.fromarray(np.array([[300, 40_000]], dtype=np.uint16))
    assert pixels(encoded(grey, transparency=300))[0, :, 0].tolist() == [255, 156]  # 40,000 / 257 = 155.6


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_without_a_range_are_refused(dtype: type) -> None:
    content = encoded(PIL.Image.fromarray(np.array([[-3, 70_000]], dtype=dtype)), "TIFF")
    with pytest.raises(BadImage, match="its numbers, -3 to 70000, have no range"):
        Image(content).decode()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_other_mode_keeps_its_colours(mode: str) -> None:
    """White is white in each; LAB cannot be made from RGB here, and rounds."""
    picture = PIL.Image.new("LAB", (3, 2), (255, 128, 128)) if mode == "LAB" else PIL.Image.new("RGB", (3, 2), "white")
    content = encoded(picture.convert(mode), "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG")
    assert pixels(content).shape == (2, 3, 3)
    assert pixels(content).min() >= 253


def test_a_palette_with_transparency_is_laid_over_white() -> None:
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    assert pixels(encoded(palette, transparency=bytes([0, 255]))).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_seen_and_sent(kind: str) -> None:
    first, second = (PIL.Image.new("RGB", (8, 8), colour) for colour in ("black", "white"))
    image = Image(encoded(first, kind, save_all=True, append_images=[second]))
    assert image.frames == 2
    assert image.decode().getpixel((0, 0)) == (0, 0, 0)
    sent = Image.from_data_uri(image.to_data_uri())
    assert sent.frames == 1
    assert sent.decode().getpixel((0, 0)) == (0, 0, 0)


def test_a_plain_picture_is_sent_byte_for_byte() -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        content = encoded(SOURCE, kind)
        assert Image.from_data_uri(Image(content).to_data_uri()).content == content


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", b"P5 1 1 255\n\x00",
        b"\x00\x00\x01\xba" + b"x" * 100, b'<svg xmlns="http://www.w3.org/2000/svg"/>', b"",
    ],
    ids=["eps", "pgm", "mpeg", "svg", "empty"],
)  # fmt: skip
def test_other_formats_are_refused_unread(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # a Ghostscript that is asked would be missed
    for use in (Image(content, "it").decode, Image(content, "it").to_data_uri):
        with pytest.raises(BadImage, match=r"it: .* \(none of PNG, JPEG, WEBP, GIF, TIFF, BMP, AVIF\)"):
            use()


def test_whatever_a_decoder_raises_is_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Decoding of <_io.BytesIO object at 0x7f00aa> failed\nat line 3")

    monkeypatch.setattr(PIL.Image, "open", fail)
    with pytest.raises(BadImage, match=r"\(Decoding of _io.BytesIO failed\)"):
        Image(b"x").decode()


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_changed_byte_gives_a_picture_or_a_bad_image(at: int, new: bytes) -> None:
    for kind in ("PNG", "GIF", "TIFF", "AVIF"):
        whole = encoded(SOURCE, kind)
        place = at % len(whole)
        try:
            assert Image(whole[:place] + new + whole[place + len(new) :]).decode().mode == "RGB"
        except BadImage:
            continue


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    """A PNG that says 9,000 x 9,000 and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 9000, 9000, 1, 0, 0, 0, 0)
    parts = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, b"IEND")
    ]
    with pytest.raises(BadImage, match="9000x9000 pixels, more than 64,000,000"):
        Image(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


@pytest.mark.parametrize("place", ["folder", "pipe", "/dev/zero", "nul\0", "x" * 400, "nothing.png"])
def test_only_a_regular_file_that_is_there_is_read(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    image = Image.from_path(tmp_path / place)
    for use in (image.decode, image.to_data_uri, lambda: image.digest):
        with pytest.raises(BadImage, match=r"no regular file|cannot be read"):
            use()


def test_a_file_of_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "MAX_BYTES", 1000)
    (tmp_path / "large.png").write_bytes(bytes(1001))
    with pytest.raises(BadImage, match="more than 1,000 bytes"):
        Image.from_path(tmp_path / "large.png").decode()


@pytest.mark.parametrize("head", ["data:image/png", "data:", "DATA:image/PNG;charset=utf-8", "data:;name=a.png"])
def test_a_data_uri_may_have_parameters_line_breaks_and_no_padding(head: str) -> None:
    content = encoded(SOURCE)
    packed = Image(content).to_data_uri().partition(",")[2]
    broken = "\n".join(packed[k : k + 76] for k in range(0, len(packed), 76))
    for text in (packed, broken, packed.rstrip("="), quote(packed, safe="")):
        assert Image.from_data_uri(f"{head};base64,{text}").content == content
    assert Image.from_data_uri(f"{head},{quote(content)}").content == content


@pytest.mark.parametrize("uri", ["data:image/png;base64", "data:image/png;base64,@@@", "data:image/png;base64,AAAAA"])
def test_a_data_uri_without_whole_bytes_is_refused(uri: str) -> None:
    with pytest.raises(BadImage, match="the data URI cannot be read"):
        Image.from_data_uri(uri)


def test_a_cause_is_one_short_line_without_addresses() -> None:
    assert cause_of(ValueError("bad <PIL.Png object at 0x7fab> here\nmore")) == "bad PIL.Png here"
    assert cause_of(FileNotFoundError(2, "No such file or directory", "a.png")) == "No such file or directory"
    assert cause_of(KeyError()) == "KeyError"
    assert len(cause_of(ValueError("x" * 999))) == 200
