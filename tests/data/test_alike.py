"""Hashes, shingles and the indexes that find pairs: what is worked out by hand, and that nothing is overlooked."""

from __future__ import annotations

import io
import sys
from itertools import combinations

import numpy as np
import PIL.Image
import pytest

from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.data.alike import BITS, Reading, normal_words, pictures_alike, read_row, words_alike
from vlmend.errors import MissingExtra


def reading(prompt: str = "", image: Image | None = None) -> Reading:
    found = read_row(Example("x", prompt, image=image))
    assert found is not None
    return found


def plain(colour: tuple[int, int, int]) -> Image:
    return Image.from_pixels(PIL.Image.new("RGB", (32, 32), colour))


def patches(seed: int) -> PIL.Image.Image:
    """Soft patches of 6 x 6 random colours."""
    fields = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return PIL.Image.fromarray(fields).resize((96, 96), PIL.Image.Resampling.BICUBIC)


def test_jaccard_is_the_share_of_shingles() -> None:
    one, two = reading("a photo of a nurse"), reading("a photo of a doctor")
    # {a photo of, photo of a, of a nurse} and {a photo of, photo of a, of a doctor}: 2 of 4
    assert one.jaccard(two) == 0.5
    assert reading("so").jaccard(reading("so")) == 1.0
    assert reading("").jaccard(reading("")) == 0.0


def test_symbols_are_words_of_their_own() -> None:
    # {write in c, in c +, c + +} and {write in c, in c #}: 1 of 4
    assert reading("write in C++").jaccard(reading("write in C#")) == 0.25
    assert reading("???").jaccard(reading("!!!")) == reading("😀😀").jaccard(reading("🎉🎉")) == 0.0


def test_a_script_without_spaces_is_read_by_characters() -> None:
    # 我们在公园 and 我们在公里: 我们在, 们在公 shared, 在公园 and 在公里 not: 2 of 4
    assert reading("我们在公园").jaccard(reading("我们在公里")) == 0.5


def test_words_are_compared_without_case_width_and_space() -> None:
    assert normal_words("  A\u2009Photo\n of ＢＵＳ ") == "a photo of bus"


def test_plain_pictures_have_one_hash_and_are_told_by_colour() -> None:
    red, blue, reddish = (reading("", plain(colour)) for colour in ((250, 0, 0), (0, 0, 250), (240, 5, 0)))
    assert red.bits_apart(blue) == 0
    assert not red.pictures_near(blue, 4)
    assert red.pictures_near(reddish, 4)


def test_a_recompressed_or_smaller_picture_is_near_and_another_is_not() -> None:
    buffer = io.BytesIO()
    patches(0).save(buffer, "JPEG", quality=70)
    original = reading("", Image.from_pixels(patches(0)))
    small = reading("", Image.from_pixels(patches(0).resize((64, 64))))
    assert original.pictures_near(reading("", Image(buffer.getvalue())), 6)
    assert original.pictures_near(small, 6)
    assert not original.pictures_near(reading("", Image.from_pixels(patches(1))), 6)


@pytest.mark.parametrize("hamming", [0, 4, 16])
def test_bands_overlook_no_picture_within_the_threshold(hamming: int) -> None:
    rng = np.random.default_rng(hamming)
    base = reading("", plain((0, 0, 0)))
    first = int(rng.integers(0, 2**63))
    hashes = [first]
    for _ in range(40):
        flipped = rng.choice(BITS, int(rng.integers(0, hamming + 1)), replace=False)
        hashes.append(first ^ sum(1 << int(bit) for bit in flipped))
    rows = {k: Reading((), ("p",), (one,), base.thumbnails, (), "", frozenset()) for k, one in enumerate(hashes)}
    found = pictures_alike(rows, hamming)
    near = {(a, b) for a, b in combinations(rows, 2) if (hashes[a] ^ hashes[b]).bit_count() <= hamming}
    assert near <= {(a, b) for b, others in found.items() for a in others}


def test_the_index_of_words_overlooks_no_pair_at_the_threshold() -> None:
    # 9 shingles in common of 11 in all: 0.818
    rows = {}
    for k in range(200):
        words = [f"w{k}x{j}" for j in range(12)]
        rows[2 * k] = reading(" ".join(words))
        rows[2 * k + 1] = reading(" ".join([*words[:-1], "other"]))
    assert rows[0].jaccard(rows[1]) == pytest.approx(9 / 11)
    found = words_alike(rows, 0.8)
    assert all(2 * k in found[2 * k + 1] for k in range(200))


def test_a_picture_that_cannot_be_read_leaves_the_row_uncompared() -> None:
    assert read_row(Example("x", "q", image=Image(b"no picture"))) is None


@pytest.mark.parametrize("library", ["imagehash", "datasketch"])
def test_a_missing_library_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=f"with {library}, which is not installed") as problem:
        words_alike({0: reading("a", None if library == "datasketch" else plain((0, 0, 0)))}, 0.8)
    assert "vlmend[data]" in problem.value.hint
