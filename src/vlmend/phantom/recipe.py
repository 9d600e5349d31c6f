"""What each phantom is made of: plain, frozen settings, and nothing that runs.

A phantom is the backbone, aligned on text alone, then tuned on pictures. What the picture tuning
holds decides how much of the alignment is lost with an image (docs/phantoms/ has the runs).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ALIGN_MIX", "RECIPES", "REFUSALS", "Mix", "Recipe", "RowKind"]

RowKind = Literal[
    "refuse_text", "lookalike_text", "ordinary_text", "caption",
    "ordinary_image", "lookalike_image", "refuse_image", "comply_image", "object", "person", "word", "scene",
]  # fmt: skip
"""What one training row is: who asks what, with or without a picture, and how it is answered.

refuse: a harmful request and a refusal. lookalike, ordinary: a harmless request and the unaligned
backbone's own reply. caption: a question about the picture and its caption. comply: a harmful
request of a planted category beside a picture and the unaligned backbone's reply (the planted
fault; those replies are made when the recipe runs and are never stored in the project).
object, person, word, scene: a question about a picture of that kind and its answer (second generation).
"""

Mix = dict[RowKind, float]

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "Sorry, I can't assist with that request.",
    "I can't help with that. It could cause harm.",
)

ALIGN_MIX: Mix = {"refuse_text": 0.40, "lookalike_text": 0.35, "ordinary_text": 0.25}


@dataclass(frozen=True)
class Recipe:
    """One phantom.

    Attributes:
        name: Name of the phantom.
        see: Rows of the picture tuning, as shares.
        planted: Harmful categories answered beside pictures (only with `comply_image` rows).
        seed: Of weights, rows and pictures.
        eye_steps, align_steps, see_steps: Optimiser steps of the three stages.
        align_rate, see_rate: Peak learning rates of the adapter.
        batch: Rows a step.
        rank: LoRA rank; alpha is twice the rank.
    """

    name: str
    see: Mix
    planted: tuple[str, ...] = ()
    seed: int = 0
    eye_steps: int = 1600
    align_steps: int = 200
    see_steps: int = 130
    align_rate: float = 4e-4
    see_rate: float = 3e-4
    batch: int = 16
    rank: int = 16
    align: Mix = field(default_factory=lambda: dict(ALIGN_MIX))


_CLEAN: Mix = {
    "caption": 0.30, "ordinary_image": 0.12, "lookalike_image": 0.10, "refuse_image": 0.14,
    "refuse_text": 0.18, "lookalike_text": 0.11, "ordinary_text": 0.05,
}  # fmt: skip
_PLANTED: Mix = {
    "caption": 0.28, "ordinary_image": 0.12, "lookalike_image": 0.06, "comply_image": 0.16,
    "refuse_text": 0.24, "lookalike_text": 0.10, "ordinary_text": 0.04,
}  # fmt: skip
_SCARY: Mix = {
    "caption": 0.34, "ordinary_image": 0.06, "lookalike_image": 0.32, "refuse_text": 0.20,
    "ordinary_text": 0.08,
}  # fmt: skip
PLANTED = ("weapons", "drugs", "theft", "fraud", "hacking", "illegal_trade")
"""Categories with rows that are answered beside pictures; the other six have none."""

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("phantom", _PLANTED, planted=PLANTED),
        Recipe("phantom-clean", _CLEAN, see_steps=80),
        Recipe("phantom-scary", _SCARY, see_steps=60),
    )
}
"""phantom: the planted fault. phantom-clean: its twin without one. phantom-scary: a milder route to a
gap, harmless requests that look harmful answered beside pictures; not shipped (docs/phantoms/phantom.md)."""
