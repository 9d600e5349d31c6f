"""How alike two rows are: pixels, perceptual hashes, colours and shingles; and indexes that find the pairs to compare.

The one home of `imagehash` and `datasketch` (extra `data`).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vlmend.core.examples import Example
from vlmend.errors import MissingExtra, SampleError

__all__ = ["BITS", "Reading", "normal_words", "pictures_alike", "read_row", "words_alike"]

BITS = 64
"""Of a perceptual hash."""

COLOUR = 0.1
"""Mean difference of two 8 x 8 thumbnails, as a share of black to white, up to which pictures can be near: the hash is
blind to colour, and takes all plain pictures for one."""

SHINGLE = 3
"""Tokens of a shingle."""

PERMUTATIONS = 128
MISSED = 1e-4
"""Chance that the index overlooks a pair just at the threshold."""

UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
TOKEN = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
"""A word, a character of a script that puts no space between words, or a symbol: C++ is not C#."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What is compared of a row.

    Attributes:
        said: Label and answers: rows that differ in them say different things.
        pixels: Digest of each decoded picture, size included.
        hashes: Perceptual hash of each picture.
        thumbnails: Each picture at 8 x 8, 0 to 1.
        texts: Its words as they stand, each turn, prompt and caption in its place; runs of space made one, NFC.
        words: All of its words in one, normalised further.
        shingles: Runs of three words or symbols of these; shorter texts are one run.
    """

    said: tuple[object, ...]
    pixels: tuple[str, ...]
    hashes: tuple[int, ...]
    thumbnails: NDArray[np.float64]
    texts: tuple[object, ...]
    words: str
    shingles: frozenset[tuple[str, ...]]

    def bits_apart(self, other: Reading) -> int | None:
        """The most bits in which two pictures in the same place differ; None without pictures."""
        pairs = zip(self.hashes, other.hashes, strict=True)
        return max(((a ^ b).bit_count() for a, b in pairs), default=None)

    def pictures_near(self, other: Reading, hamming: int) -> bool:
        """Whether they have as many pictures, each near to that in its place; true where neither has any."""
        if len(self.hashes) != len(other.hashes):
            return False
        if (self.bits_apart(other) or 0) > hamming:
            return False
        apart = np.abs(self.thumbnails - other.thumbnails).mean(axis=(1, 2, 3))
        return bool((apart <= COLOUR).all())

    def jaccard(self, other: Reading) -> float:
        """Share of shingles that both have; 0 where one has none."""
        return len(self.shingles & other.shingles) / max(1, len(self.shingles | other.shingles))


def read_row(example: Example) -> Reading | None:
    """What is compared of a row, earlier turns included; None where a picture cannot be read.

    Raises:
        MissingExtra: It has pictures, and imagehash is not installed.
    """
    try:
        images = [image.decode() for image in example.conversation.images]
    except SampleError:
        return None
    turns = [f"{turn.role}: {turn.text}" for turn in example.turns]
    words = "\n".join(normal_words(text) for text in (*turns, example.prompt, example.caption or "")).strip()
    told = tuple((turn.role, _plain(turn.text), len(turn.images)) for turn in example.turns)
    tokens: list[str] = TOKEN.findall(words)
    runs = [tuple(tokens[k : k + SHINGLE]) for k in range(max(1, len(tokens) - SHINGLE + 1))] if tokens else []
    small = [np.asarray(image.resize((8, 8), PIL.Image.Resampling.BOX), np.float64) / 255 for image in images]
    return Reading(
        (example.label, example.answers),
        tuple(hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest() for image in images),
        tuple(_hash(image) for image in images),
        np.stack(small) if small else np.zeros((0, 8, 8, 3)),
        (told, _plain(example.prompt), _plain(example.caption or "")),
        words,
        frozenset(runs),
    )


def normal_words(text: str) -> str:
    """Small letters, compatibility forms made one (NFKC), runs of space made one."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def pictures_alike(rows: Mapping[int, Reading], hamming: int) -> dict[int, set[int]]:
    """For each row with pictures the earlier ones whose first hash is equal in one of `hamming` + 1 bands of bits.

    Hashes that differ in at most `hamming` bits leave one band untouched, so no pair is overlooked.
    """
    edges = [round(BITS * k / (hamming + 1)) for k in range(hamming + 2)]
    bands: dict[object, list[int]] = defaultdict(list)
    found: dict[int, set[int]] = {}
    for place, row in rows.items():
        if row.hashes:
            first = row.hashes[0]
            keys = [(k, first >> edges[k] & (1 << edges[k + 1] - edges[k]) - 1) for k in range(hamming + 1)]
            found[place] = {other for key in keys for other in bands[key]}
            for key in keys:
                bands[key].append(place)
    return found


def words_alike(rows: Mapping[int, Reading], jaccard: float) -> dict[int, set[int]]:
    """For each row the earlier ones that a MinHash index takes for alike.

    A pair just at the threshold is overlooked with a chance of at most `MISSED` (where `jaccard` is 0.1 or more).

    Raises:
        MissingExtra: datasketch is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as problem:
        raise _missing("datasketch") from problem
    width = next(r for r in range(16, 0, -1) if r == 1 or (1 - jaccard**r) ** (PERMUTATIONS // r) <= MISSED)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(PERMUTATIONS // width, width))
    found: dict[int, set[int]] = {}
    for place, row in rows.items():
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch(sorted(" ".join(run).encode("utf-8", "replace") for run in row.shingles))
        found[place] = set(cast("list[int]", index.query(sketch)))
        index.insert(place, sketch, check_duplication=False)
    return found


def _hash(image: PIL.Image.Image) -> int:
    """The perceptual hash of a picture: which of its low frequencies lie above their median."""
    try:
        import imagehash
    except ImportError as problem:
        raise _missing("imagehash") from problem
    return int("".join("1" if bit else "0" for bit in imagehash.phash(image).hash.ravel()), 2)


def _missing(library: str) -> MissingExtra:
    return MissingExtra(f"Rows are compared with {library}, which is not installed.", "pip install 'vlmend[data]'")
