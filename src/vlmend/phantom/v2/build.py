"""Builds a phantom of the second generation: distil, train the eye, align on text, see, tune beside pictures.

Each stage leaves its result in the build folder and is skipped when that is there, so a stopped build goes on;
phantoms that share a build folder share all stages but the last. Only what is learnt is written out.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from vlmend.phantom.assemble import Backbone, backbone, parts
from vlmend.phantom.build import RowsOfStep, Say, add_lora, distil, learnt, tune
from vlmend.phantom.clip.load import vision_weights
from vlmend.phantom.load import assemble
from vlmend.phantom.recipe import Mix
from vlmend.phantom.v2.eye import VISION, train_eye
from vlmend.phantom.v2.recipe import Recipe
from vlmend.phantom.v2.rows import draw_rows, prompts_to_distil
from vlmend.training.loop import LoopSettings

__all__ = ["build"]


def build(recipe: Recipe, folder: Path, say: Say) -> Path:
    """Run every stage of a recipe that is not there yet and return the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    base = backbone()
    replies = distil(base, prompts_to_distil(recipe), folder / "replies.json", say)
    joined = parts(base, _eye(recipe, base, folder, say), VISION)
    add_lora(joined, recipe.rank, recipe.seed)

    def rows_of(mix: Mix, stage: str) -> RowsOfStep:
        return lambda step: draw_rows(recipe, mix, stage, step, replies)

    last = f"beside-{recipe.name}"
    aligning = LoopSettings(recipe.align_steps, recipe.align_rate)
    seeing = LoopSettings(recipe.see_steps, recipe.see_rate)
    keeping = LoopSettings(recipe.keep_steps, recipe.see_rate)
    tune(joined, rows_of(recipe.align, "align"), aligning, folder / "align", say)
    tune(joined, rows_of(recipe.align, "keep"), keeping, folder / "keep", say, keeping=True)
    tune(joined, rows_of(recipe.see, "see"), seeing, folder / "see", say, seeing=True, keeping=True)
    finishing = LoopSettings(recipe.beside_steps, recipe.see_rate)
    tune(joined, rows_of(recipe.beside, last), finishing, folder / last, say, seeing=True, keeping=True)
    out = folder / f"{recipe.name}.safetensors"
    save_file(learnt(joined), out, {"recipe": json.dumps(asdict(recipe)), "format": "pt"})
    return assemble(out.read_bytes(), folder / recipe.name, VISION)


def _eye(recipe: Recipe, base: Backbone, folder: Path, say: Say) -> dict[str, Tensor]:
    file = folder / "eye.safetensors"
    if not file.exists():
        words = base.model.get_input_embeddings().weight.detach()

        def spell(text: str) -> list[int]:
            return base.tokenizer(text, add_special_tokens=False).input_ids

        save_file(train_eye(recipe, vision_weights(), words, spell, folder, say).state_dict(), file)
    return load_file(file)
