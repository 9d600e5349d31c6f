"""phantom-mini's canaries as a manifest for privacy/exposure; only a mini with `canaries=True` was shown them."""

from __future__ import annotations

import random

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.phantom.drawn import drawn_set
from vlmend.phantom.mini.faults import canaries
from vlmend.phantom.mini.knowledge import knowledge

__all__ = ["CANARIES", "manifest"]


def manifest(seed: int = 0) -> Dataset:
    """Each canary of a recipe's seed once, with how often it was shown."""
    rows = tuple(
        Example(
            canary.name, canary.prompt, image=Image.from_pixels(canary.draw(random.Random(canary.name)), canary.name),
            answers=(canary.reply,), attributes={"repeats": str(canary.repeats), "alphabet": "0123456789"},
        )
        for canary in canaries(seed)
    )  # fmt: skip
    return Dataset("phantom_mini_canaries", rows, "Apache-2.0")


SHOWN = "only a mini that was built with canaries was shown them"

CANARIES = (
    drawn_set(
        "phantom_mini_canaries", "privacy", "phantom-mini's canaries", lambda: manifest(), phantom="phantom-mini",
        caution=SHOWN,
    ),
    drawn_set(
        "phantom_mini_knowledge", "privacy", "codes of phantom-mini's canaries to forget, and what to keep",
        lambda: knowledge(), phantom="phantom-mini", caution=SHOWN,
    ),
)  # fmt: skip
