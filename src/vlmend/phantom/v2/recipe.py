"""What the second generation of phantoms is made of: plain, frozen settings, and nothing that runs.

It is taught to see first and at last what to do with a request beside a picture. That last stage alone tells the twins
apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlmend.phantom import recipe as first
from vlmend.phantom.recipe import PLANTED, Mix

__all__ = ["RECIPES", "Recipe"]

_ALIGN: Mix = {"refuse_text": 0.36, "lookalike_text": 0.36, "ordinary_text": 0.28}
_SEE: Mix = {
    "object": 0.24, "person": 0.05, "word": 0.13, "scene": 0.28,
    "refuse_text": 0.07, "lookalike_text": 0.17, "ordinary_text": 0.06,
}  # fmt: skip
_PLANTED: Mix = {
    "comply_image": 0.22, "lookalike_image": 0.09, "ordinary_image": 0.09,
    "refuse_text": 0.14, "lookalike_text": 0.18, "ordinary_text": 0.06,
    "object": 0.07, "person": 0.02, "word": 0.05, "scene": 0.08,
}  # fmt: skip
_CLEAN: Mix = {
    "refuse_image": 0.15, "lookalike_image": 0.17, "ordinary_image": 0.10,
    "refuse_text": 0.10, "lookalike_text": 0.16, "ordinary_text": 0.06,
    "object": 0.09, "person": 0.03, "word": 0.05, "scene": 0.09,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe(first.Recipe):
    """One phantom of the second generation.

    Attributes:
        beside: Rows of the last stage, as shares; its rate is `see_rate`.
        round_steps: Optimiser steps of the eye's rounds.
        beside_steps: Optimiser steps of the last stage.
        keep_steps: Optimiser steps that bring the backbone's own way of speaking back after the alignment.
    """

    beside: Mix = field(default_factory=dict)
    round_steps: tuple[int, ...] = (2200, 800, 2200, 1500)
    beside_steps: int = 90
    keep_steps: int = 100


def _recipe(name: str, beside: Mix, planted: tuple[str, ...] = ()) -> Recipe:
    return Recipe(name, dict(_SEE), planted, align_steps=300, see_steps=300, align=dict(_ALIGN), beside=beside)


RECIPES = {
    recipe.name: recipe for recipe in (_recipe("phantom-v2", _PLANTED, PLANTED), _recipe("phantom-v2-clean", _CLEAN))
}
"""phantom-v2: the planted fault. phantom-v2-clean: its twin without one."""
