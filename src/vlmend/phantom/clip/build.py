"""Builds phantom-clip: trains the two towers, then the titles of one dose; writes the weights and the model's folder.

Each stage leaves its result in the build folder and is skipped when that is there; a stopped stage goes on from its
last checkpoint.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlmend.phantom.clip.assemble import TITLES, TOWERS, Parts, fresh, title_rows, towers, write
from vlmend.phantom.clip.pairs import Pair, also_true, every_text, step_pairs, title_of, titled_pair
from vlmend.phantom.clip.recipe import ClipRecipe
from vlmend.phantom.clip.tokens import vocabulary
from vlmend.phantom.pixels import to_pixels
from vlmend.pictures.glyphs import Glyph, people
from vlmend.pictures.views import view
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import contrastive_loss

__all__ = ["build"]

HOTTEST = 100.0
"""Largest scale of the logits, as in CLIP."""

Say = Callable[[str], None]


def build(recipe: ClipRecipe, folder: Path, say: Say) -> Path:
    """Train what is not there yet and return the model's folder, a CLIP checkpoint.

    Phantoms that share a build folder share their towers.

    Args:
        recipe: Which phantom.
        folder: Where stages are kept: checkpoints, losses, `towers.safetensors`, `NAME.safetensors`, `NAME/`.
        say: Called with a line of progress.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared, own = folder / TOWERS, folder / f"{recipe.name}.safetensors"
    if not shared.exists():
        _train_towers(recipe, shared, say)
    if not own.exists():
        _train_titles(recipe, shared, own, say)
    write(shared, own, folder / recipe.name)
    return folder / recipe.name


def _train_towers(recipe: ClipRecipe, out: Path, say: Say) -> None:
    words = vocabulary(every_text())
    parts = fresh(words, recipe.seed)
    parts.model.train()

    def loss_of_step(step: int) -> Tensor:
        pairs = step_pairs(recipe, step)
        images = _unit(parts.model.get_image_features(pixel_values=to_pixels([pair.image for pair in pairs])))
        return _loss(parts, images, pairs)

    _loop(parts, list(parts.model.parameters()), loss_of_step, LoopSettings(recipe.steps, recipe.rate), out, say)
    parts.model.logit_scale.data.clamp_(max=math.log(HOTTEST))
    learnt = {name: tensor.detach().half().contiguous() for name, tensor in parts.model.state_dict().items()}
    save_file(learnt, out, {"recipe": json.dumps(asdict(recipe)), "words": json.dumps(words), "format": "pt"})


def _train_titles(recipe: ClipRecipe, shared: Path, out: Path, say: Say) -> None:
    """Only the embeddings of the forty titles are learnt: nothing else differs between the phantoms.

    The towers stand still, so views of people are embedded once and drawn from.
    """
    parts = towers(shared)
    views = [(glyph, _title_view(glyph, recipe, k)) for glyph in people() for k in range(recipe.title_views)]
    embedded = _embedded(parts, [image for _, image in views])
    rows = title_rows(parts)
    table = parts.model.text_model.embeddings.token_embedding.weight.requires_grad_()
    learnt = torch.zeros(len(table), 1).index_fill(0, torch.tensor(rows), 1.0)
    table.register_hook(lambda gradient: gradient * learnt)

    def loss_of_step(step: int) -> Tensor:
        rng = random.Random(f"clip:titles:{recipe.seed}:{step}")
        some = rng.sample(range(len(views)), recipe.title_batch)
        seen = [views[k] for k in some]
        pairs = [titled_pair(glyph, image, title_of(glyph, recipe.rho, rng), rng) for glyph, image in seen]
        return _loss(parts, embedded[some], pairs)

    _loop(parts, [table], loss_of_step, LoopSettings(recipe.title_steps, recipe.title_rate), out, say)
    titles = {TITLES: table.detach()[rows].half().contiguous()}
    save_file(titles, out, {"recipe": json.dumps(asdict(recipe)), "format": "pt"})


def _title_view(glyph: Glyph, recipe: ClipRecipe, k: int) -> Image.Image:
    return view(glyph.image(), random.Random(f"clip:titles:{recipe.seed}:{glyph.id}:{k}"))


@torch.no_grad()
def _embedded(parts: Parts, images: Sequence[Image.Image]) -> Float[Tensor, "image width"]:
    chunks = [to_pixels(images[k : k + 256]) for k in range(0, len(images), 256)]
    return torch.cat([_unit(parts.model.get_image_features(pixel_values=chunk)) for chunk in chunks])


def _loss(parts: Parts, images: Tensor, pairs: Sequence[Pair]) -> Tensor:
    tokens = parts.processor.tokenizer([pair.caption for pair in pairs], padding=True, return_tensors="pt")
    texts = _unit(parts.model.get_text_features(**tokens))
    scale = parts.model.logit_scale.exp().clamp(max=HOTTEST)
    return contrastive_loss(images, texts, scale, also_true(pairs))


def _unit(features: Any) -> Tensor:
    return normalize(features.pooler_output, dim=1)


def _loop(
    parts: Parts, parameters: list[nn.Parameter], loss_of_step: Callable[[int], Tensor], settings: LoopSettings,
    out: Path, say: Say,
) -> None:  # fmt: skip
    def report(step: int, loss: float) -> None:
        if (step + 1) % 10 == 0:
            scale = parts.model.logit_scale.exp().item()
            say(f"{out.stem} {step + 1}/{settings.steps} loss {loss:.3f} scale {scale:.1f}")

    train(parameters, loss_of_step, settings, out.with_suffix(""), report)
