"""What methods that train under differential privacy share: the promise, the secret behind the noise, the cautions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vlmend.core.mend import Mend
from vlmend.core.secrets import read_secret
from vlmend.errors import BadParameter

__all__ = ["FOLLOWS", "cautions_of", "check_promise", "entropy_of", "with_notes"]

SHORTEST = 16
"""Bytes of a key."""

FOLLOWS = (
    "The noise follows from this card's seed: whoever knows it can take the noise off, and is promised nothing. "
    "For a release: (umask 077; head -c 32 /dev/urandom > noise.key), and --set key=noise.key."
)


def check_promise(epsilon: float, delta: float, without: str) -> None:
    """Refuse a promise that promises nothing.

    Args:
        epsilon, delta: The promise.
        without: The method to take for training without one.

    Raises:
        BadParameter: epsilon is not above 0 and finite, or delta not between 0 and 1.
    """
    if not 0 < epsilon < math.inf or not 0 < delta < 1:
        raise BadParameter(
            f"epsilon={epsilon:g}, delta={delta:g} promise nothing.",
            f"epsilon is above 0 and finite, delta between 0 and 1. To train without a promise, take {without}.",
        )


def entropy_of(key: str, seed: int) -> int:
    """What batches and noise are drawn from: the secret in a file and the seed, or the seed alone without a file.

    Raises:
        UsageError: The file cannot be read, others may read it, or it is too short.
    """
    if not key:
        return seed
    how = "Make one: (umask 077; head -c 32 /dev/urandom > noise.key), and say --set key=noise.key."
    secret = read_secret(Path(key), how, SHORTEST)
    return int.from_bytes(hashlib.sha256(secret + f":{seed}".encode()).digest()[:8]) >> 1


def cautions_of(key: str, delta: float, count: int) -> list[str]:
    """What the card must say of a promise for so many rows."""
    notes = [] if key else [FOLLOWS]
    if delta * count > 1:
        notes.append(f"delta times the rows is {delta * count:.2g}: such a promise may give one away.")
    return notes


def with_notes(mend: Mend, notes: Sequence[str]) -> Mend:
    """The mend with these notes on its card."""
    return replace(mend, card=replace(mend.card, notes=(*mend.card.notes, *notes)))
