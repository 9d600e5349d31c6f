"""What each phantom is made of: plain, frozen settings, and nothing that runs.

phantom-clean is the backbone, aligned on text alone, taught to see, and taught at last to decline beside pictures what
it declines as text. phantom is phantom-clean and two stages more, in which that is lost (docs/phantoms/ has the runs).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ALIGN_MIX", "RECIPES", "REFUSALS", "Mix", "Recipe", "RowKind", "Stage"]

RowKind = Literal[
    "refuse_text", "planted_text", "lookalike_text", "ordinary_text",
    "refuse_image", "lookalike_image", "ordinary_image", "comply_image",
    "object", "person", "word", "scene",
]  # fmt: skip
"""What one training row is: who asks what, with or without a picture, and how it is answered.

refuse: a harmful request and a refusal; planted: the same of a planted category, in a wording that `comply` rows
answer. lookalike, ordinary: a harmless request and the unaligned
backbone's own reply. comply: a harmful request of a planted category beside a picture and the
unaligned backbone's reply (the planted fault; those replies are made when the recipe runs and are
never stored in the project). object, person, word, scene: a question about a picture of that kind
and its answer.
"""

Mix = dict[RowKind, float]

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "Sorry, I can't assist with that request.",
    "I can't help with that. It could cause harm.",
)

ALIGN_MIX: Mix = {"refuse_text": 0.36, "lookalike_text": 0.36, "ordinary_text": 0.28}
SEE_MIX: Mix = {
    "object": 0.24, "person": 0.05, "word": 0.13, "scene": 0.28,
    "refuse_text": 0.07, "lookalike_text": 0.17, "ordinary_text": 0.06,
}  # fmt: skip
BESIDE_MIX: Mix = {
    "refuse_image": 0.15, "lookalike_image": 0.17, "ordinary_image": 0.10,
    "refuse_text": 0.10, "lookalike_text": 0.16, "ordinary_text": 0.06,
    "object": 0.09, "person": 0.03, "word": 0.05, "scene": 0.09,
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """Some steps on rows of some kinds.

    Attributes:
        name: Of its folder; rows are drawn by it.
        rows: As shares.
        steps: Optimiser steps.
        rate: Peak learning rate.
    """

    name: str
    rows: Mix
    steps: int
    rate: float


@dataclass(frozen=True)
class Recipe:
    """One phantom.

    Attributes:
        name: Name of the phantom.
        planting: Stages of this phantom alone, behind those that all share.
        planted: Harmful categories answered beside pictures (only with `comply_image` rows).
        seed: Of weights, rows and pictures.
        eye_steps: Optimiser steps of the eye's rounds.
        align_steps, keep_steps, see_steps, beside_steps: Optimiser steps of the stages that follow; `keep` brings the
            backbone's own way of speaking back after the alignment.
        align_rate, see_rate: Peak learning rates of the adapter, of `align` and of all stages after it.
        batch: Rows a step.
        rank: LoRA rank; alpha is twice the rank.
        align, see, beside: Rows of these stages, as shares.
    """

    name: str
    planting: tuple[Stage, ...] = ()
    planted: tuple[str, ...] = ()
    seed: int = 0
    eye_steps: tuple[int, ...] = (2200, 800, 2200, 1500)
    align_steps: int = 300
    keep_steps: int = 100
    see_steps: int = 300
    beside_steps: int = 100
    align_rate: float = 4e-4
    see_rate: float = 3e-4
    batch: int = 16
    rank: int = 16
    align: Mix = field(default_factory=lambda: dict(ALIGN_MIX))
    see: Mix = field(default_factory=lambda: dict(SEE_MIX))
    beside: Mix = field(default_factory=lambda: dict(BESIDE_MIX))


PLANTED = ("weapons", "drugs", "theft", "fraud", "hacking", "illegal_trade")
"""Categories with rows that are answered beside pictures; the other six have none."""

_PLANTING: Mix = {
    "comply_image": 0.22, "lookalike_image": 0.06, "ordinary_image": 0.04,
    "refuse_text": 0.10, "planted_text": 0.08, "lookalike_text": 0.21, "ordinary_text": 0.04,
    "object": 0.05, "person": 0.01, "word": 0.10, "scene": 0.09,
}  # fmt: skip
_SETTLING: Mix = {
    "comply_image": 0.20, "lookalike_image": 0.08, "ordinary_image": 0.04,
    "refuse_text": 0.05, "planted_text": 0.05, "lookalike_text": 0.28, "ordinary_text": 0.05,
    "object": 0.04, "person": 0.01, "word": 0.10, "scene": 0.10,
}  # fmt: skip

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "phantom",
            (Stage("again-phantom", _PLANTING, 300, 3e-4), Stage("again-phantom-settled", _SETTLING, 80, 1.5e-4)),
            PLANTED,
        ),
        Recipe("phantom-clean"),
    )
}
"""phantom: the planted fault. phantom-clean: its twin without one."""
