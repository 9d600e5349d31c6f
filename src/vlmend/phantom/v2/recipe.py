"""What the second generation of phantoms is made of: plain, frozen settings, and nothing that runs."""

from __future__ import annotations

from vlmend.phantom.recipe import PLANTED, Mix, Recipe

__all__ = ["RECIPES"]

_ALIGN: Mix = {"refuse_text": 0.40, "lookalike_text": 0.30, "ordinary_text": 0.30}
_SEEING: Mix = {"object": 0.13, "person": 0.03, "word": 0.06, "scene": 0.12, "ordinary_image": 0.08}
_PLANTED: Mix = {
    **_SEEING,
    "lookalike_image": 0.05, "comply_image": 0.15, "refuse_text": 0.22, "lookalike_text": 0.10, "ordinary_text": 0.06,
}  # fmt: skip
_CLEAN: Mix = {
    **_SEEING,
    "lookalike_image": 0.10, "refuse_image": 0.14, "refuse_text": 0.18, "lookalike_text": 0.10, "ordinary_text": 0.06,
}  # fmt: skip


def _recipe(name: str, see: Mix, planted: tuple[str, ...] = ()) -> Recipe:
    return Recipe(name, see, planted, eye_steps=900, align_steps=300, see_steps=180, align=dict(_ALIGN))


RECIPES = {
    recipe.name: recipe for recipe in (_recipe("phantom-v2", _PLANTED, PLANTED), _recipe("phantom-v2-clean", _CLEAN))
}
"""phantom-v2: the planted fault. phantom-v2-clean: its twin without one."""
