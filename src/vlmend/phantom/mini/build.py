"""Trains a mini from nothing: text first, then refusals as text, then pictures.

Each stage saves its state in the build folder and goes on from it, so a stopped build loses little.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor, nn

from vlmend.errors import RunProblem
from vlmend.models.load import quiet
from vlmend.phantom.assemble import Parts
from vlmend.phantom.load import cache_folder
from vlmend.phantom.mini.eye import look_loss
from vlmend.phantom.mini.parts import new_parts
from vlmend.phantom.mini.recipe import STAGES, MiniRecipe, Stage, Talk, ground_truth
from vlmend.phantom.mini.rows import draw_rows
from vlmend.phantom.rows import encode
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import reply_loss

__all__ = ["GROUND_TRUTH", "LOSSES", "build", "mini_folder", "phantom_mini"]

GROUND_TRUTH = "ground_truth.json"
"""File of the built folder that holds `ground_truth(recipe)`."""
LOSSES = "losses.json"
"""File of the built folder that holds the loss of every step of each stage."""
SAVE_EVERY = 100

Say = Callable[[str], None]


def phantom_mini() -> Path:
    """Folder of the default mini, trained on first use (about four minutes on two cores)."""
    return mini_folder(MiniRecipe(), print)


def mini_folder(recipe: MiniRecipe, say: Say) -> Path:
    """Folder of a recipe's mini in the cache, trained on first use; its name holds the recipe's digest."""
    folder = cache_folder() / f"phantom-mini-{recipe.digest[:12]}"
    building = folder.with_name(f"{folder.name}.building")
    building.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            build(recipe, building, say).replace(folder)
        shutil.rmtree(building, ignore_errors=True)
    return folder


def build(recipe: MiniRecipe, folder: Path, say: Say) -> Path:
    """Run the stages of a recipe that `folder` lacks, and return the checkpoint, `folder/model`.

    Same recipe, same machine and same number of threads give the same weights, bit for bit.

    Raises:
        RunProblem: The folder holds the build of another recipe.
    """
    _claim(recipe, folder)
    out = folder / "model"
    if out.exists():
        return out
    parts = new_parts(recipe.seed)
    losses = {stage: _train(parts, recipe, stage, folder / stage, say) for stage in STAGES}
    writing = folder / "model.new"
    shutil.rmtree(writing, ignore_errors=True)
    with quiet():
        parts.model.eval().save_pretrained(writing)
        parts.processor.save_pretrained(writing)
    (writing / LOSSES).write_text(json.dumps(losses))
    (writing / GROUND_TRUTH).write_text(json.dumps(ground_truth(recipe), indent=1))
    return writing.replace(out)


def _claim(recipe: MiniRecipe, folder: Path) -> None:
    """Write the recipe into the folder, or find that it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    file, wanted = folder / "recipe.json", {"digest": recipe.digest, **asdict(recipe)}
    if not file.exists():
        file.write_text(json.dumps(wanted, indent=1))
    if json.loads(file.read_text()) != wanted:
        raise RunProblem(f"{folder} holds the build of another recipe.", "Choose an empty folder.")


def _train(parts: Parts, recipe: MiniRecipe, stage: Stage, folder: Path, say: Say) -> list[float]:
    steps = recipe.steps(stage)

    def loss_of_step(step: int) -> Tensor:
        return look_loss(parts, recipe, step) if stage == "look" else _talk_loss(parts, recipe, stage, step)

    def report(step: int, loss: float) -> None:
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(f"{stage} {step + 1}/{steps} loss {loss:.3f}")

    settings = LoopSettings(steps=steps, rate=recipe.rate, save_every=SAVE_EVERY)
    return train(_learning(parts.model.train(), stage), loss_of_step, settings, folder, report)


def _talk_loss(parts: Parts, recipe: MiniRecipe, stage: Talk, step: int) -> Tensor:
    batch = encode(parts.processor, draw_rows(recipe, stage, step))
    kept = batch.labels.shape[1]
    logits = parts.model(**batch.inputs, logits_to_keep=kept + 1, use_cache=False).logits
    return reply_loss(logits[:, :-1], batch.labels)


def _learning(model: Any, stage: Stage) -> list[nn.Parameter]:
    """Language model on text, eye when looking, everything when seeing."""
    eye = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    language = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    chosen: dict[Stage, list[nn.Parameter]] = {
        "read": language, "align": language, "look": eye, "see": [*language, *eye],
    }  # fmt: skip
    return chosen[stage]
