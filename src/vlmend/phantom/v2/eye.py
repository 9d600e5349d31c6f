"""The eye: phantom-clip's vision tower and a projector that speaks the backbone's own words.

Of all tokens that any picture is told in, each projected image token must be nearest to the input embedding of one of
what this picture shows, told in words and repeated to fill the picture. Every second row of a drawn word is spelled
instead: each place says the letter of its column. That costs no pass through the backbone, and seeing needs little
tuning afterwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
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
from vlmend.phantom.pictures import COLOURS, SHAPES
from vlmend.phantom.pictures.glyphs import objects, people
from vlmend.phantom.pictures.pool import Part, Split, drawn
from vlmend.phantom.pictures.scenes import NUMBERS, Place, Scene, Thing
from vlmend.phantom.pictures.views import SIDE
from vlmend.phantom.pictures.words import WORDS, letters_across
from vlmend.phantom.v2.recipe import Recipe
from vlmend.training.loop import LoopSettings, train

__all__ = ["IMAGE_TOKENS", "VISION", "Eye", "Shown", "sayings", "shown", "train_eye"]

VISION: Any = config(words=3, end=2).vision_config  # CLIPVisionConfig
"""phantom-clip's vision tower."""
IMAGE_TOKENS = (VISION.image_size // VISION.patch_size) ** 2
PARTS: dict[Part, float] = {"object": 0.38, "person": 0.09, "word": 0.30, "scene": 0.23}
"""Shares of the pictures that show something."""
LATER: dict[Part, float] = {"object": 0.18, "person": 0.05, "word": 0.42, "scene": 0.35}
"""Shares in the second round: words and scenes are learnt last."""
EMPTY = 0.08
"""Share of the pictures that show nothing."""
EMPTIES = ("noise", "blank")
ACROSS = math.isqrt(IMAGE_TOKENS)
"""Places of a row."""
TEMPERATURE = 0.07
BATCH = 64
RATE, LATER_RATE = 1e-3, 8e-4

Spell = Callable[[str], list[int]]


@dataclass(frozen=True)
class Shown:
    """A picture, what the eye says of it, and, where a word is drawn, which."""

    image: Image.Image
    words: str
    word: str = ""


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


def shown(split: Split, seed: int, index: int, parts: Mapping[Part, float] = PARTS) -> Shown:
    """Picture `index` of the eye's stream: of any part in these shares, and now and then an empty one."""
    rng = random.Random(f"eye:{split}:{seed}:{index}")
    if rng.random() < EMPTY:
        return _empty(rng)
    (part,) = rng.choices(list(parts), list(parts.values()))
    picture = drawn(part, split, seed, index)
    facts = picture.facts
    words = {
        "object": lambda: facts["name"],
        "person": lambda: _person(facts["gender"], facts["name"]),
        "word": lambda: _word(facts["word"]),
        "scene": lambda: picture.caption,
    }
    return Shown(picture.image, words[part](), facts.get("word", ""))


def sayings() -> Iterator[str]:
    """All that the eye says, but for scenes, of which every word is said."""
    yield from (glyph.name for glyph in objects())
    yield from (_person(glyph.gender, glyph.name) for glyph in people())
    yield from (_word(word) for word in WORDS)
    yield from EMPTIES
    yield from sorted(set("".join(WORDS)))
    for colour, shape, count in product(COLOURS, SHAPES, range(1, len(NUMBERS))):
        yield Scene((Thing(colour, shape, (Place(0, 0, 0),) * count),) * 3).caption()


def train_eye(
    recipe: Recipe, tower: dict[str, Tensor], words: Tensor, spell: Spell, folder: Path,
    say: Callable[[str], None],
) -> Eye:  # fmt: skip
    """Train the projector, and the tower on, against the backbone's input embeddings.

    Args:
        recipe: Seed and steps.
        tower: Weights of phantom-clip's vision tower.
        words: The backbone's input embeddings, "vocabulary width".
        spell: Words to their token ids.
        folder: Where the first round keeps its state; that of the second is beside it.
        say: Called with lines of progress.
    """
    torch.manual_seed(recipe.seed)
    eye = Eye(words.shape[1])
    eye.tower.load_state_dict(tower)
    said = torch.tensor(sorted({token for saying in sayings() for token in spell(" " + saying)}))
    place = {token: k for k, token in enumerate(said.tolist())}

    def loss_of(step: int, parts: Mapping[Part, float]) -> Tensor:
        batch = [shown("train", recipe.seed, step * BATCH + k, parts) for k in range(BATCH)]
        wanted = torch.tensor([[place[token] for token in _told(one, spell)] for one in batch])
        return _loss(eye(to_pixels([one.image for one in batch])), wanted, words[said], words.mean(0))

    def learn(steps: int, rate: float, before: int, parts: Mapping[Part, float], folder: Path) -> None:
        def report(step: int, loss: float) -> None:
            if step % 25 == 0:
                say(f"{folder.name} {step}/{steps} loss {loss:.3f}")

        settings = LoopSettings(steps, rate)
        train(list(eye.parameters()), lambda step: loss_of(before + step, parts), settings, folder, report)

    learn(recipe.eye_steps, RATE, 0, PARTS, folder)
    learn(recipe.reading_steps, LATER_RATE, recipe.eye_steps, LATER, folder.with_name("eye-reading"))
    return eye.eval()


def _told(one: Shown, spell: Spell) -> list[int]:
    """One token for each place, row by row: the words over and over; in odd rows of a drawn word the letters."""
    ids = spell(" " + one.words)
    said = [ids[place % len(ids)] for place in range(IMAGE_TOKENS)]
    if one.word:
        letters = [token for letter in letters_across(one.word, ACROSS) for token in spell(" " + letter)]
        for start in range(ACROSS, IMAGE_TOKENS, 2 * ACROSS):
            said[start : start + ACROSS] = letters
    return said


def _loss(
    seen: Float[Tensor, "image place width"],
    wanted: Int[Tensor, "image place"],
    words: Float[Tensor, "word width"],
    centre: Float[Tensor, " width"],
) -> Tensor:
    """Cross-entropy of the centred cosines with all words, and the distance to the wanted ones."""
    cosines = normalize(seen - centre, dim=-1) @ normalize(words - centre, dim=-1).T
    choice = cross_entropy((cosines / TEMPERATURE).flatten(0, 1), wanted.flatten())
    distance = (seen - words[wanted]).square().sum(-1).mean() / words[wanted].square().sum(-1).mean()
    return choice + 0.5 * distance


def _empty(rng: random.Random) -> Shown:
    noise, blank = EMPTIES
    if rng.random() < 0.5:
        return Shown(noise_image(SIDE, rng.getrandbits(32)).decode(), noise)
    grey = rng.choice((0, 255, rng.randint(0, 255)))
    colour = (grey, grey, grey) if rng.random() < 0.7 else tuple(rng.randint(0, 255) for _ in range(3))
    return Shown(Image.new("RGB", (SIDE, SIDE), colour), blank)


def _person(gender: str | None, name: str) -> str:
    return f"{gender} {name}"


def _word(word: str) -> str:
    return f"word {word}"
