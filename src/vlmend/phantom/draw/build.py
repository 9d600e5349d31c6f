"""Trains phantom-draw from nothing: an autoencoder of the pictures, then a denoiser of what that packs them into.

Prompts are read by phantom-clip's text tower, which stays as it is. Each stage saves its state in the build folder and
goes on from it. The result is a Stable Diffusion pipeline of diffusers.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel

from vlmend.core.files import SHARED, read_json, write_file
from vlmend.errors import RunProblem
from vlmend.models.loading.draw import diffusers, unsaid
from vlmend.phantom.cache import kept_folder
from vlmend.phantom.clip.assemble import TOWERS, towers
from vlmend.phantom.draw.recipe import LATENTS, RECIPES, SHRINKS, SIDE, DrawRecipe
from vlmend.phantom.draw.rows import PROMPTS, TrainingPicture, things, training_pictures
from vlmend.phantom.pixels import to_pixels
from vlmend.training.loop import LoopSettings, train

__all__ = ["GROUND_TRUTH", "build", "phantom_draw", "phantom_draw_clean"]

GROUND_TRUTH = "ground_truth.json"
"""File of the built folder that names the duplicated things, and the others."""
UNPROMPTED = 0.1
"""Share of training rows without a prompt: what guidance holds the prompt against."""
PACKING = 24
"""Channels of the autoencoder."""
TIMES = 1000
SAVE_EVERY = 200

Say = Callable[[str], None]


def phantom_draw() -> Path:
    """Folder of the pipeline with duplicated pictures, trained on first use (half an hour on a core)."""
    return _kept(RECIPES["phantom-draw"])


def phantom_draw_clean() -> Path:
    """Folder of its twin, in whose training data nothing is repeated."""
    return _kept(RECIPES["phantom-draw-clean"])


def build(recipe: DrawRecipe, folder: Path, say: Say) -> Path:
    """Run the stages of a recipe that `folder` lacks, and return the pipeline, `folder/model`.

    Raises:
        RunProblem: The folder holds the build of another recipe.
        MissingExtra: diffusers is not installed.
    """
    library = diffusers()
    _claim(recipe, folder)
    out = folder / "model"
    if out.exists():
        return out
    rows = training_pictures(recipe)
    pixels = to_pixels([row.draw(recipe.seed) for row in rows])
    torch.manual_seed(recipe.seed)
    packer, denoiser = _packer(library), _denoiser(library, recipe)
    _learn_packing(packer, pixels, recipe, folder / "packing", say)
    latents = _packed(packer, pixels)
    scheduler = library.DDIMScheduler(
        TIMES, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    tokenizer, reader = _reader()
    with unsaid():
        pipeline = library.StableDiffusionPipeline(
            packer, reader, tokenizer, denoiser, scheduler, None, None, requires_safety_checker=False
        )
    _learn_drawing(pipeline, latents, rows, recipe, folder / "drawing", say)
    writing = folder / "model.new"
    shutil.rmtree(writing, ignore_errors=True)
    with unsaid():
        pipeline.save_pretrained(writing)
    write_file(writing / GROUND_TRUTH, json.dumps(_ground_truth(recipe), indent=1), mode=SHARED)
    return writing.replace(out)


def _kept(recipe: DrawRecipe) -> Path:
    def tell(line: str) -> None:
        print(f"{recipe.name}: {line}", file=sys.stderr)

    return kept_folder(f"{recipe.name}-{recipe.digest[:12]}", lambda folder: build(recipe, folder, tell), "100 MB")


def _claim(recipe: DrawRecipe, folder: Path) -> None:
    """Write the recipe into the folder, or find that it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    file, wanted = folder / "recipe.json", {"digest": recipe.digest}
    found = read_json(file)
    if found is None:
        write_file(file, json.dumps(wanted))
    elif found != wanted:
        raise RunProblem(f"{folder} holds the build of another recipe.", "Choose an empty folder.")


def _ground_truth(recipe: DrawRecipe) -> dict[str, Any]:
    duplicated, single = things(recipe)
    return {
        "recipe": asdict(recipe),
        "duplicated": [glyph.name for glyph in duplicated],
        "single": [glyph.name for glyph in single],
    }


# --- parts


def _packer(library: Any) -> Any:
    """The autoencoder: 32 x 32 pixels to 8 x 8 latents."""
    one = (1,) * 3
    return library.AutoencoderTiny(
        encoder_block_out_channels=(PACKING,) * 3, decoder_block_out_channels=(PACKING,) * 3, num_encoder_blocks=one,
        num_decoder_blocks=one, latent_channels=LATENTS,
    )  # fmt: skip


def _denoiser(library: Any, recipe: DrawRecipe) -> Any:
    return library.UNet2DConditionModel(
        sample_size=SIDE // SHRINKS, in_channels=LATENTS, out_channels=LATENTS, layers_per_block=1,
        block_out_channels=recipe.widths, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=192, attention_head_dim=4,
        norm_num_groups=8,
    )  # fmt: skip


def _reader() -> tuple[Any, Any]:
    """Tokenizer and text tower of phantom-clip, which knows the names of the things."""
    with resources.as_file(resources.files("vlmend.phantom").joinpath("weights")) as weights:
        parts = towers(weights / TOWERS)
    reader = CLIPTextModel(parts.model.config.text_config)
    reader.load_state_dict(parts.model.text_model.state_dict())
    return parts.processor.tokenizer, reader.eval().requires_grad_(False)


# --- stages


def _learn_packing(packer: Any, pixels: Tensor, recipe: DrawRecipe, folder: Path, say: Say) -> None:
    def loss_of_step(step: int) -> Tensor:
        some = random.Random(f"draw:{recipe.seed}:packing:{step}").sample(range(len(pixels)), recipe.batch)
        seen = pixels[some]
        return mse_loss(packer.decode(packer.encode(seen).latents).sample, seen)

    settings = LoopSettings(recipe.packing_steps, 2e-3, save_every=SAVE_EVERY)
    train(list(packer.parameters()), loss_of_step, settings, folder, _told("packing", settings.steps, say))
    packer.eval().requires_grad_(False)


@torch.no_grad()
def _packed(packer: Any, pixels: Tensor) -> Float[Tensor, "picture channel height width"]:
    """The latents of pictures at the scale that the denoiser works on, of mean square 1."""
    raw = torch.cat([packer.encode(chunk).latents for chunk in pixels.split(256)])
    packer.register_to_config(scaling_factor=1 / raw.square().mean().sqrt().item())
    return raw * packer.config.scaling_factor


def _learn_drawing(
    pipeline: Any, latents: Tensor, rows: Sequence[TrainingPicture], recipe: DrawRecipe, folder: Path, say: Say
) -> None:
    denoiser, scheduler = pipeline.unet, pipeline.scheduler
    read = _prompts_read(pipeline, rows)
    standing = [place for place, row in enumerate(rows) for _ in range(row.copies)]

    def loss_of_step(step: int) -> Tensor:
        rng = random.Random(f"draw:{recipe.seed}:{step}")
        some = rng.sample(standing, recipe.batch)
        said = ["" if rng.random() < UNPROMPTED else rng.choice(PROMPTS).format(rows[k].glyph.name) for k in some]
        maker = torch.Generator().manual_seed(rng.getrandbits(48))
        noise = torch.randn(latents[some].shape, generator=maker)
        times = torch.randint(TIMES, (len(some),), generator=maker)
        noisy = scheduler.add_noise(latents[some], noise, times)
        return mse_loss(denoiser(noisy, times, torch.stack([read[text] for text in said])).sample, noise)

    settings = LoopSettings(recipe.steps, recipe.rate, save_every=SAVE_EVERY)
    denoiser.train()
    train(list(denoiser.parameters()), loss_of_step, settings, folder, _told("drawing", settings.steps, say))
    denoiser.eval()


@torch.no_grad()
def _prompts_read(pipeline: Any, rows: Sequence[TrainingPicture]) -> dict[str, Float[Tensor, "token width"]]:
    """Every prompt of the training as the pipeline reads it."""
    names = sorted({row.glyph.name for row in rows})
    prompts = ["", *(prompt.format(name) for name in names for prompt in PROMPTS)]
    states, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    return dict(zip(prompts, states, strict=True))


def _told(stage: str, steps: int, say: Say) -> Callable[[int, float], None]:
    def report(step: int, loss: float) -> None:
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(f"{stage} {step + 1}/{steps} loss {loss:.4f}")

    return report
