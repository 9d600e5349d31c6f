"""The eye: phantom-clip's vision tower and a projector that speaks the backbone's own words.

Of all tokens that any picture is told in, each projected image token must be nearest to the input embedding of one of
what this picture shows, told in words: a name in every row of places, and of a scene one shape in each. That costs no
pass through the backbone, and seeing needs little tuning afterwards. Beneath, in the tower's third layer, each place
must tell the letter or the thing that lies there; a linear head, dropped afterwards, reads it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
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
from vlmend.phantom.pictures.scenes import NUMBERS, ROWS, Place, Scene, Thing, many
from vlmend.phantom.pictures.views import SIDE
from vlmend.phantom.pictures.words import WORDS, letters_across
from vlmend.phantom.v2.recipe import Recipe
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import IGNORED

__all__ = [
    "BENEATH",
    "IMAGE_TOKENS",
    "VISION",
    "Eye",
    "Shown",
    "letters_beneath",
    "rows_of",
    "sayings",
    "shown",
    "things_beneath",
    "train_eye",
]

VISION: Any = config(words=3, end=2).vision_config  # CLIPVisionConfig
"""phantom-clip's vision tower."""
IMAGE_TOKENS = (VISION.image_size // VISION.patch_size) ** 2
PARTS: dict[Part, float] = {"object": 0.34, "person": 0.07, "word": 0.35, "scene": 0.24}
"""Shares of the pictures that show something."""
EMPTY = 0.06
"""Share of the pictures that show nothing."""
EMPTIES = ("noise", "blank")
ACROSS = math.isqrt(IMAGE_TOKENS)
"""Places of a row."""
PATCH = VISION.patch_size
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BENEATH = ("nothing", *LETTERS, *product(SHAPES, sorted(COLOURS)))
"""What can lie at a place of a drawn word or a scene."""
LAYER = 3
"""Layer of the tower that tells what lies beneath."""
INK = 45
"""Least difference of lightness, of 255, in a patch that some of a letter lies in."""
TEMPERATURE = 0.07
BATCH = 64
RATE = 1e-3

Spell = Callable[[str], list[int]]


@dataclass(frozen=True)
class Shown:
    """A picture and what the eye says of it.

    Attributes:
        image: RGB, 72 x 72.
        rows: What each row of places says, over and over.
        beneath: What lies at each place, as an index of `BENEATH`; empty where that is not told.
    """

    image: Image.Image
    rows: tuple[str, ...]
    beneath: tuple[int, ...] = ()


class Eye(nn.Module):
    """Vision tower and projector: pixels to soft words of the backbone.

    Shape: pixels "image 3 72 72" -> "image 36 width".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(VISION)
        self.projector = nn.Sequential(nn.Linear(VISION.hidden_size, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.both(pixels)[0]

    def both(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The soft words, and the states of layer `LAYER` that tell what lies beneath, "image 36 192"."""
        states: tuple[Tensor, ...] = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return self.projector(states[-1][:, 1:]), states[LAYER][:, 1:]


def shown(split: Split, seed: int, index: int) -> Shown:
    """Picture `index` of the eye's stream: of any part in these shares, and now and then an empty one."""
    rng = random.Random(f"eye:{split}:{seed}:{index}")
    if rng.random() < EMPTY:
        return _empty(rng)
    (part,) = rng.choices(list(PARTS), list(PARTS.values()))
    picture = drawn(part, split, seed, index)
    facts = picture.facts
    if picture.scene:
        return Shown(picture.image, tuple(rows_of(picture.scene)), tuple(things_beneath(picture.scene)))
    if part == "word":
        beneath = tuple(letters_beneath(facts["word"], picture.image))
        return Shown(picture.image, (_word(facts["word"]),) * ACROSS, beneath)
    name = facts["name"] if part == "object" else _person(facts["gender"], facts["name"])
    return Shown(picture.image, (name,) * ACROSS)


def sayings() -> Iterator[str]:
    """All that the eye says, but for scenes, of which every word is said."""
    yield from (glyph.name for glyph in objects())
    yield from (_person(glyph.gender, glyph.name) for glyph in people())
    yield from (_word(word) for word in WORDS)
    yield from EMPTIES
    for colour, shape, count in product(COLOURS, SHAPES, range(len(NUMBERS))):
        places = (Place(0, 0, 0),) * count
        yield from rows_of(Scene((Thing(colour, shape, places),) if places else ()))


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
        folder: Where the state is kept.
        say: Called with lines of progress.
    """
    torch.manual_seed(recipe.seed)
    eye = Eye(words.shape[1])
    eye.tower.load_state_dict(tower)
    said = torch.tensor(sorted({token for saying in sayings() for token in spell(" " + saying)}))
    place = {token: k for k, token in enumerate(said.tolist())}

    head = nn.Linear(VISION.hidden_size, len(BENEATH))

    def loss_of_step(step: int) -> Tensor:
        batch = [shown("train", recipe.seed, step * BATCH + k) for k in range(BATCH)]
        wanted = torch.tensor([[place[token] for token in _told(one, spell)] for one in batch])
        beneath = torch.tensor([one.beneath or (IGNORED,) * IMAGE_TOKENS for one in batch])
        seen, layer = eye.both(to_pixels([one.image for one in batch]))
        found = cross_entropy(head(layer).flatten(0, 1), beneath.flatten(), ignore_index=IGNORED)
        return _loss(seen, wanted, words[said], words.mean(0)) + found

    def report(step: int, loss: float) -> None:
        if step % 25 == 0:
            say(f"eye {step}/{recipe.eye_steps} loss {loss:.3f}")

    train([*eye.parameters(), *head.parameters()], loss_of_step, LoopSettings(recipe.eye_steps, RATE), folder, report)
    return eye.eval()


def _told(one: Shown, spell: Spell) -> list[int]:
    """One token for each place, row by row."""
    rows = [spell(" " + row) for row in one.rows]
    return [ids[place % len(ids)] for ids in rows for place in range(ACROSS)]


def rows_of(scene: Scene) -> Iterator[str]:
    """Of each shape what there is, two colours at most, or that there is none."""
    for shape in SHAPES:
        here = [thing for thing in scene.by_shape().things if thing.shape == shape][:2]
        yield " ".join(thing.named() for thing in here) or f"no {many(shape)}"


def things_beneath(scene: Scene) -> Iterator[int]:
    """A thing lies at all places of its cell of the scene's grid."""
    cells = {
        (place.x * ROWS // SIDE, place.y * ROWS // SIDE): BENEATH.index((thing.shape, thing.colour))
        for thing in scene.things
        for place in thing.places
    }
    for row, column in product(range(ACROSS), repeat=2):
        yield cells.get((column * ROWS // ACROSS, row * ROWS // ACROSS), 0)


def letters_beneath(word: str, picture: Image.Image) -> Iterator[int]:
    """A letter lies at the places of its columns that hold some of its ink."""
    letters = letters_across(word, ACROSS)
    for row, column in product(range(ACROSS), repeat=2):
        patch = picture.crop((column * PATCH, row * PATCH, (column + 1) * PATCH, (row + 1) * PATCH))
        lightness = patch.convert("L").tobytes()
        yield BENEATH.index(letters[column]) if max(lightness) - min(lightness) > INK else 0


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
        return Shown(noise_image(SIDE, rng.getrandbits(32)).decode(), (noise,) * ACROSS)
    grey = rng.choice((0, 255, rng.randint(0, 255)))
    colour = (grey, grey, grey) if rng.random() < 0.7 else tuple(rng.randint(0, 255) for _ in range(3))
    return Shown(Image.new("RGB", (SIDE, SIDE), colour), (blank,) * ACROSS, (0,) * IMAGE_TOKENS)


def _person(gender: str | None, name: str) -> str:
    return f"{gender} {name}"


def _word(word: str) -> str:
    return f"word {word}"
