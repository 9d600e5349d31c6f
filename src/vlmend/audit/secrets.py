"""Secrets of a known form: where a row's own stands among others that could as well have been drawn."""

from __future__ import annotations

import random
from collections.abc import Mapping

from vlmend.audit.means import FLOOR
from vlmend.core.examples import Example
from vlmend.core.metrics.exposure import alternatives, exposure, exposure_by_chance
from vlmend.core.targets import ChatLikelihoods

__all__ = ["ALPHABET", "MOST", "exposed", "varied"]

ALPHABET = "alphabet"
"""The attribute that holds the letters that a secret is drawn from."""
MOST = 255
"""Secrets that a row's own is ranked among: at most log2(256) = 8 bits can be seen."""


def varied(row: Example) -> bool:
    """Whether a row's secret could have been another."""
    alphabet = row.attributes.get(ALPHABET, "")
    return len(set(alphabet)) > 1 and any(letter in alphabet for answer in row.answers[:1] for letter in answer)


def exposed(subject: ChatLikelihoods, row: Example, seed: int) -> Mapping[str, float]:
    """Exposure in bits and whether the own secret is first, and what chance gives.

    Args:
        subject: Whose likelihoods are read.
        row: With its question, its secret as first answer and the alphabet.
        seed: Of the draw of others.
    """
    rng = random.Random(f"exposure:{seed}:{row.id}")
    codes = [row.answers[0], *alternatives(row.answers[0], row.attributes[ALPHABET], MOST, rng)]
    own, *others = [float(found.double().sum()) for found in subject.logprobs([row.conversation] * len(codes), codes)]
    return {
        "exposure": exposure(own, others), f"exposure{FLOOR}": exposure_by_chance(len(codes)),
        "ranked_first": float(own > max(others)), f"ranked_first{FLOOR}": 1 / len(codes),
    }  # fmt: skip
