"""Minis that share more or less with phantom-mini: what `study transfer` is tried on.

    python -m tools.phantom.mini_variants OUT            # OUT/projector, OUT/other
    python -m tools.phantom.mini_variants OUT --clean    # the same of phantom-mini-clean
    vlmend study transfer phantom-mini,OUT/projector,OUT/other --data phantom_mini_questions --epsilon 8/255 --out study

`projector` has phantom-mini's tower and language model, and between them a projector that was learnt anew from another
seed; `other` is the same recipe from another seed, all of it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import LlavaForConditionalGeneration

from vlmend.phantom.chat.assemble import Parts
from vlmend.phantom.mini.build import build, phantom_mini, phantom_mini_clean
from vlmend.phantom.mini.eye import look_loss
from vlmend.phantom.mini.parts import new_parts
from vlmend.phantom.mini.recipe import RECIPES, MiniRecipe
from vlmend.training.loop import LoopSettings, train

SEED = 1
STEPS = 300


def main() -> None:
    """Make both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clean", action="store_true")
    given = parser.parse_args()
    out: Path = given.out
    recipe = replace(RECIPES["phantom-mini-clean" if given.clean else "phantom-mini"], seed=SEED)
    other_projector(phantom_mini_clean() if given.clean else phantom_mini(), out / "projector", out / "projecting")
    build(recipe, out / "building-other", print).replace(out / "other")


def other_projector(mini: Path, out: Path, building: Path) -> None:
    """A mini with a projector of another seed, which alone learns to speak of each patch again."""
    fresh = new_parts(SEED)
    model: Any = LlavaForConditionalGeneration.from_pretrained(mini)
    projector = model.model.multi_modal_projector
    projector.load_state_dict(fresh.model.model.multi_modal_projector.state_dict())
    parts = Parts(model.train().requires_grad_(False), fresh.processor)
    learning = [*projector.requires_grad_().parameters()]
    recipe = MiniRecipe(seed=SEED)
    train(learning, lambda step: look_loss(parts, recipe, step), LoopSettings(STEPS, recipe.rate), building, _say)
    model.eval().save_pretrained(out)
    fresh.processor.save_pretrained(out)


def _say(step: int, loss: float) -> None:
    if (step + 1) % 50 == 0:
        print(f"projector {step + 1}/{STEPS} loss {loss:.3f}")


if __name__ == "__main__":
    main()
