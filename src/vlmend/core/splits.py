"""Splits that depend on the words alone.

The same words land on the same side in every data set, on every machine, whatever the order of
the rows; a paraphrase of one row never moves another.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

__all__ = ["SPLITS", "Split", "split_of", "word_fraction"]

Split = Literal["held_out", "validation", "anchor", "train"]

SPLITS: dict[Split, float] = {"held_out": 0.30, "validation": 0.40, "anchor": 0.55, "train": 1.0}
"""Upper edge of each split on the unit interval, in order."""


def word_fraction(text: str) -> float:
    """First 8 hex digits of the SHA-256 of the normalised text, as a fraction of 16^8.

    Normalised: NFKC, lower case, white space collapsed, trailing `.`, `?`, `!` removed.
    """
    words = " ".join(unicodedata.normalize("NFKC", text).lower().split()).rstrip(".?! ")
    return int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) / 16**8


def split_of(text: str) -> Split:
    """The split that a text belongs to."""
    fraction = word_fraction(text)
    return next(split for split, edge in SPLITS.items() if fraction < edge)
