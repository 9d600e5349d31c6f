"""Exposure: in bits, how far up a secret stands among others that could as well have been drawn.

Carlini et al., The Secret Sharer, USENIX Security 2019.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

__all__ = ["alternatives", "exposure", "exposure_by_chance"]


def exposure(own: float, others: Sequence[float]) -> float:
    """log2(n) - log2(rank) among the n = 1 + len(others) candidates; a tie counts against the secret.

    Between 0 and log2(n). Of a secret that is nothing to the model, at least x bits have probability 2^-x.
    """
    rank = 1 + sum(other >= own for other in others)
    return math.log2(1 + len(others)) - math.log2(rank)


def exposure_by_chance(candidates: int) -> float:
    """The mean where every rank is as likely; 1 / ln 2 = 1.4427 bits with many candidates."""
    return math.log2(candidates) - float(np.log2(np.arange(1, candidates + 1)).mean())


def alternatives(secret: str, alphabet: str, most: int, rng: random.Random) -> list[str]:
    """Other secrets of the same form, each once: every letter of the alphabet drawn anew, all else as it stands.

    All of them where there are at most that many, else as many, drawn evenly.
    """
    places = [k for k, letter in enumerate(secret) if letter in alphabet]
    space = len(alphabet) ** len(places)
    own = sum(alphabet.index(secret[k]) * len(alphabet) ** j for j, k in enumerate(places))
    drawn = range(space) if space - 1 <= most else rng.sample(range(space), most + 1)
    return [_written(secret, places, alphabet, number) for number in drawn if number != own][:most]


def _written(secret: str, places: Sequence[int], alphabet: str, number: int) -> str:
    letters = list(secret)
    for k in places:
        number, letter = divmod(number, len(alphabet))
        letters[k] = alphabet[letter]
    return "".join(letters)
