"""The eye: phantom-clip's vision tower and a projector that speaks the backbone's own words.

Each projected image token must be nearest to the input embedding of one token of what the picture shows, told in
words and repeated to fill the picture. That costs no pass through the backbone, and seeing needs little tuning
afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPVisionModel

from vlmend.core.images import noise_image
from vlmend.phantom.clip.build import to_pixels
from vlmend.phantom.clip.recipe import config
from vlmend.phantom.pictures.pool import Part, Split, drawn
from vlmend.phantom.pictures.views import SIDE
from vlmend.phantom.recipe import Recipe
from vlmend.training.loop import LoopSettings, train

__all__ = ["IMAGE_TOKENS", "VISION", "Eye", "Shown", "shown", "train_eye"]

VISION: Any = config(words=3, end=2).vision_config  # CLIPVisionConfig
"""phantom-clip's vision tower."""
IMAGE_TOKENS = (VISION.image_size // VISION.patch_size) ** 2
PARTS: dict[Part, float] = {"object": 0.49, "person": 0.11, "word": 0.18, "scene": 0.22}
"""Shares of the pictures that show something."""
EMPTY = 0.08
"""Share of the pictures that show nothing."""
TEMPERATURE = 0.07
BATCH = 64
RATE = 1e-3


@dataclass(frozen=True)
class Shown:
    """A picture, and what the eye says of it."""

    image: Image.Image
    words: str


class Eye(nn.Module):
    """Vision tower and projector: pixels to soft words of the backbone.

    Shape: pixels "image 3 72 72" -> "image 36 width".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(VISION)
        self.projector = nn.Sequential(nn.Linear(VISION.hidden_size, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.tower(pixel_values=pixels).last_hidden_state
        return self.projector(features[:, 1:])


def shown(split: Split, seed: int, index: int) -> Shown:
    """Picture `index` of the eye's stream: of any part, and now and then an empty one."""
    rng = random.Random(f"eye:{split}:{seed}:{index}")
    if rng.random() < EMPTY:
        return _empty(rng)
    (part,) = rng.choices(list(PARTS), list(PARTS.values()))
    picture = drawn(part, split, seed, index)
    facts = picture.facts
    words = {
        "object": lambda: facts["name"],
        "person": lambda: f"{facts['gender']} {facts['name']}",
        "word": lambda: f"word {facts['word']}",
        "scene": lambda: picture.caption,
    }
    return Shown(picture.image, words[part]())


def train_eye(
    recipe: Recipe, tower: dict[str, Tensor], words: Tensor, spell: Callable[[str], list[int]], folder: Path,
    say: Callable[[str], None],
) -> Eye:  # fmt: skip
    """Train the projector, and the tower on, against the backbone's input embeddings.

    Args:
        recipe: Seed and steps.
        tower: Weights of phantom-clip's vision tower.
        words: The backbone's input embeddings, "vocabulary width".
        spell: Words to their token ids.
        folder: Where the loop keeps its state.
        say: Called with lines of progress.
    """
    torch.manual_seed(recipe.seed)
    eye = Eye(words.shape[1])
    eye.tower.load_state_dict(tower)
    centre = words.mean(0)

    def loss_of_step(step: int) -> Tensor:
        batch = [shown("train", recipe.seed, step * BATCH + k) for k in range(BATCH)]
        wanted = torch.tensor([_row(spell(" " + one.words)) for one in batch])
        return _loss(eye(to_pixels([one.image for one in batch])), wanted, words, centre)

    def report(step: int, loss: float) -> None:
        if step % 25 == 0:
            say(f"eye {step}/{recipe.eye_steps} loss {loss:.3f}")

    train(list(eye.parameters()), loss_of_step, LoopSettings(recipe.eye_steps, RATE), folder, report)
    return eye.eval()


def _row(ids: Sequence[int]) -> list[int]:
    """One token for each place, over and over."""
    return [ids[place % len(ids)] for place in range(IMAGE_TOKENS)]


def _loss(
    seen: Float[Tensor, "image place width"], wanted: Int[Tensor, "image place"], words: Tensor, centre: Tensor
) -> Tensor:
    """Cross-entropy of the centred cosines with the tokens of this step, and the distance to the wanted ones."""
    tokens, places = wanted.unique(return_inverse=True)
    cosines = normalize(seen - centre, dim=-1) @ normalize(words[tokens] - centre, dim=-1).T
    choice = cross_entropy((cosines / TEMPERATURE).flatten(0, 1), places.flatten())
    distance = (seen - words[wanted]).square().sum(-1).mean() / words[wanted].square().sum(-1).mean()
    return choice + 0.5 * distance


def _empty(rng: random.Random) -> Shown:
    if rng.random() < 0.5:
        return Shown(noise_image(SIDE, rng.getrandbits(32)).decode(), "noise")
    grey = rng.choice((0, 255, rng.randint(0, 255)))
    colour = (grey, grey, grey) if rng.random() < 0.7 else tuple(rng.randint(0, 255) for _ in range(3))
    return Shown(Image.new("RGB", (SIDE, SIDE), colour), "blank")
