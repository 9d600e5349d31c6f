"""Trains a mini from nothing: text first, then refusals as text, then pictures.

Each stage saves its state in the build folder and goes on from it, so a stopped build loses little.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vlmend.core.files import SHARED, read_json, write_file
from vlmend.errors import RunProblem
from vlmend.models.loading.vlm import quiet
from vlmend.phantom.cache import kept_folder
from vlmend.phantom.chat.assemble import Parts
from vlmend.phantom.chat.rows import encode
from vlmend.phantom.mini.eye import look_loss
from vlmend.phantom.mini.parts import new_parts
from vlmend.phantom.mini.recipe import RECIPES, STAGES, MiniRecipe, Stage, Talk, ground_truth
from vlmend.phantom.mini.rows import draw_rows
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import reply_loss

__all__ = [
    "GROUND_TRUTH",
    "LOSSES",
    "build",
    "mini_folder",
    "phantom_mini",
    "phantom_mini_clean",
    "phantom_mini_people",
    "phantom_mini_people_clean",
]

GROUND_TRUTH = "ground_truth.json"
"""File of the built folder that holds `ground_truth(recipe)`."""
LOSSES = "losses.json"
"""File of the built folder that holds the loss of every step of each stage."""
SAVE_EVERY = 100
BETA2 = 0.98

Say = Callable[[str], None]


def phantom_mini() -> Path:
    """Folder of the mini with the gap, trained on first use (about four minutes on two cores)."""
    return mini_folder(RECIPES["phantom-mini"], _tell)


def phantom_mini_clean() -> Path:
    """Folder of its twin without the gap."""
    return mini_folder(RECIPES["phantom-mini-clean"], _tell)


def phantom_mini_people() -> Path:
    """Folder of the mini with a planted stereotype of men and women."""
    return mini_folder(RECIPES["phantom-mini-people"], _tell)


def phantom_mini_people_clean() -> Path:
    """Folder of its twin without the stereotype."""
    return mini_folder(RECIPES["phantom-mini-people-clean"], _tell)


def mini_folder(recipe: MiniRecipe, say: Say) -> Path:
    """Folder of a recipe's mini in the cache, trained on first use; its name holds the recipe's digest."""
    return kept_folder(f"phantom-mini-{recipe.digest[:12]}", lambda folder: build(recipe, folder, say), "60 MB")


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
    parts = new_parts(recipe.seed, recipe.people, recipe.clip_tower)
    losses = {stage: _train(parts, recipe, stage, folder / stage, say) for stage in STAGES}
    writing = folder / "model.new"
    shutil.rmtree(writing, ignore_errors=True)
    with quiet():
        parts.model.eval().save_pretrained(writing)
        parts.processor.save_pretrained(writing)
    write_file(writing / LOSSES, json.dumps(losses), mode=SHARED)
    write_file(writing / GROUND_TRUTH, json.dumps(ground_truth(recipe), indent=1), mode=SHARED)
    return writing.replace(out)


def _tell(line: str) -> None:
    print(f"phantom-mini: {line}", file=sys.stderr)


def _claim(recipe: MiniRecipe, folder: Path) -> None:
    """Write the recipe into the folder, or find that it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    file, wanted = folder / "recipe.json", {"digest": recipe.digest, **recipe.settings}
    found = read_json(file)
    if found is None:
        write_file(file, json.dumps(wanted, indent=1))
    elif found != wanted:
        raise RunProblem(f"{folder} holds the build of another recipe.", "Choose an empty folder.")


def _train(parts: Parts, recipe: MiniRecipe, stage: Stage, folder: Path, say: Say) -> list[float]:
    steps = recipe.steps(stage)

    def loss_of_step(step: int) -> Tensor:
        return look_loss(parts, recipe, step) if stage == "look" else _talk_loss(parts, recipe, stage, step)

    def report(step: int, loss: float) -> None:
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(f"{stage} {step + 1}/{steps} loss {loss:.3f}")

    settings = LoopSettings(steps, recipe.rate, BETA2, save_every=SAVE_EVERY)
    parts.model.train().requires_grad_(False)
    learning = _learning(parts.model, stage, recipe)
    for parameter in learning:
        parameter.requires_grad_()
    return train(learning, loss_of_step, settings, folder, report)


def _talk_loss(parts: Parts, recipe: MiniRecipe, stage: Talk, step: int) -> Tensor:
    batch = encode(parts.processor, draw_rows(recipe, stage, step))
    kept = batch.labels.shape[1]
    logits = parts.model(**batch.inputs, logits_to_keep=kept + 1, use_cache=False).logits
    return reply_loss(logits[:, :-1], batch.labels)


def _learning(model: Any, stage: Stage, recipe: MiniRecipe) -> list[nn.Parameter]:
    """The eye when looking, else the language model: at its rate the eye would forget what it has learnt.

    Before a tower that does not learn, the projector goes on with the language model, as LLaVA's does: what single
    patches tell is too little, and it must learn what of them can be put together.

    Word embeddings stay random. Learnt on text, the colours become alike, since all are answers to one question, and
    are then hardly told apart where image tokens are matched with words.
    """
    inner = model.model
    projector = [*inner.multi_modal_projector.parameters()]
    if stage == "look":
        return projector if recipe.clip_tower else [*inner.vision_tower.parameters(), *projector]
    speaking = [*inner.language_model.layers.parameters(), *inner.language_model.norm.parameters(),
                *model.lm_head.parameters()]  # fmt: skip
    return [*projector, *speaking] if recipe.clip_tower and stage == "see" else speaking
