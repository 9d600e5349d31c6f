"""The eye: phantom-clip's vision tower and a projector that speaks the backbone's own words.

Of all tokens that any picture is told in, each projected image token must be nearest to the input embedding of one of
what this picture shows. That costs no pass through the backbone, and seeing needs little tuning afterwards. It is
learnt in four rounds. In the first two the places tell the picture's caption over and over, and every second row
spells a drawn word, letter by column. In the others, rows tell what the picture alone fixes: the name, the word, or,
of a scene, one shape each; and beneath, each place must tell in the tower's third layer which letter or thing lies
there, and in the last round in the fourth layer how many of it there are. Linear heads read both and are dropped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPVisionModel

from vlmend.core.images import noise_image
from vlmend.phantom.chat.assemble import IMAGE_TOKENS, VISION
from vlmend.phantom.chat.recipe import Recipe
from vlmend.phantom.pixels import to_pixels
from vlmend.pictures.glyphs import objects, people
from vlmend.pictures.pool import Part, Split, drawn
from vlmend.pictures.scenes import COLOURS, NUMBERS, ROWS, SHAPES, Place, Scene, Thing, many
from vlmend.pictures.views import SIDE
from vlmend.pictures.words import WORDS, letters_across
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import IGNORED

__all__ = [
    "BENEATH",
    "Eye",
    "Shown",
    "letters_beneath",
    "rows_of",
    "sayings",
    "shown",
    "things_beneath",
    "train_eye",
]

EMPTY = 0.08
"""Share of the pictures that show nothing."""
EMPTIES = ("noise", "blank")
ACROSS = math.isqrt(IMAGE_TOKENS)
"""Places of a row."""
PATCH = VISION.patch_size
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BENEATH = ("nothing", *LETTERS, *product(SHAPES, sorted(COLOURS)))
"""What can lie at a place of a drawn word or a scene."""
LAYERS = (3, 4)
"""Layers of the tower that tell what lies beneath, and how many of it there are."""
INK = 45
"""Least difference of lightness, of 255, in a patch that some of a letter lies in."""
TEMPERATURE = 0.07
BATCH = 64

Spell = Callable[[str], list[int]]


@dataclass(frozen=True)
class Round:
    """One round of learning.

    Attributes:
        parts: Shares of the pictures that show something.
        rate: Peak learning rate.
        beneath: How many facts are told beneath: none, and captions above; what lies there, and rows above; or how
            many of it there are too.
    """

    parts: Mapping[Part, float]
    rate: float
    beneath: int = 0


ROUNDS = {
    "eye": Round({"object": 0.38, "person": 0.09, "word": 0.30, "scene": 0.23}, 1e-3),
    "eye-reading": Round({"object": 0.18, "person": 0.05, "word": 0.42, "scene": 0.35}, 8e-4),
    "eye-rows": Round({"object": 0.19, "person": 0.06, "word": 0.45, "scene": 0.30}, 8e-4, beneath=1),
    "eye-counting": Round({"object": 0.19, "person": 0.06, "word": 0.20, "scene": 0.55}, 7e-4, beneath=2),
}
"""By the folder that each leaves its state in."""


@dataclass(frozen=True)
class Shown:
    """A picture and what the eye says of it.

    Attributes:
        image: RGB, 72 x 72.
        caption: What all places say in the first rounds, over and over.
        rows: What each row of places says, over and over.
        word: The drawn word, if one is.
        beneath: What lies at each place, as an index of `BENEATH`; empty where that is not told.
        numbers: How many of the thing at each place there are; empty where that is not told.
    """

    image: Image.Image
    caption: str
    rows: tuple[str, ...]
    word: str = ""
    beneath: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()


class Eye(nn.Module):
    """Vision tower and projector: pixels to soft words of the backbone.

    Shape: pixels "image 3 72 72" -> "image 36 width".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(VISION)
        self.projector = nn.Sequential(nn.Linear(VISION.hidden_size, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.all(pixels)[0]

    def all(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The soft words, and the states of `LAYERS`, each "image 36 192"."""
        states: tuple[Tensor, ...] = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return self.projector(states[-1][:, 1:]), *(states[layer][:, 1:] for layer in LAYERS)


def shown(split: Split, seed: int, index: int, parts: Mapping[Part, float] = ROUNDS["eye"].parts) -> Shown:
    """Picture `index` of the eye's stream: of any part in these shares, and now and then an empty one."""
    rng = random.Random(f"eye:{split}:{seed}:{index}")
    if rng.random() < EMPTY:
        return _empty(rng)
    (part,) = rng.choices(list(parts), list(parts.values()))
    picture = drawn(part, split, seed, index)
    image, facts = picture.image, picture.facts
    if picture.scene:
        beneath, numbers = zip(*things_beneath(picture.scene), strict=True)
        return Shown(image, picture.caption, tuple(rows_of(picture.scene)), beneath=beneath, numbers=numbers)
    if part == "word":
        word = facts["word"]
        return Shown(image, _word(word), (_word(word),) * ACROSS, word, tuple(letters_beneath(word, image)))
    name = facts["name"] if part == "object" else _person(facts["gender"], facts["name"])
    return Shown(image, name, (name,) * ACROSS)


def sayings() -> Iterator[str]:
    """All that the eye says, but for scenes, of which every word is said."""
    yield from (glyph.name for glyph in objects())
    yield from (_person(glyph.gender, glyph.name) for glyph in people())
    yield from (_word(word) for word in WORDS)
    yield from EMPTIES
    yield from LETTERS
    yield Scene((Thing("red", "ring", ()),) * 3).caption()
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
        folder: Where each round keeps its state, in a folder of its name.
        say: Called with lines of progress.
    """
    torch.manual_seed(recipe.seed)
    eye = Eye(words.shape[1])
    eye.tower.load_state_dict(tower)
    said = torch.tensor(sorted({token for saying in sayings() for token in spell(" " + saying)}))
    place = {token: k for k, token in enumerate(said.tolist())}
    heads = [nn.Linear(VISION.hidden_size, len(each)) for each in (BENEATH, NUMBERS)]

    def loss_of(first: int, turn: Round) -> Tensor:
        batch = [shown("train", recipe.seed, first + k, turn.parts) for k in range(BATCH)]
        wanted = torch.tensor([[place[token] for token in _told(one, turn, spell)] for one in batch])
        seen, *layers = eye.all(to_pixels([one.image for one in batch]))
        loss = _loss(seen, wanted, words[said], words.mean(0))
        facts = [[one.beneath for one in batch], [one.numbers for one in batch]]
        for head, layer, told in list(zip(heads, layers, facts, strict=True))[: turn.beneath]:
            answers = torch.tensor([each or (IGNORED,) * IMAGE_TOKENS for each in told])
            loss = loss + cross_entropy(head(layer).flatten(0, 1), answers.flatten(), ignore_index=IGNORED)
        return loss

    def learn(name: str, turn: Round, steps: int, before: int) -> None:
        def report(step: int, loss: float) -> None:
            if step % 25 == 0:
                say(f"{name} {step}/{steps} loss {loss:.3f}")

        learning = [*eye.parameters(), *nn.ModuleList(heads[: turn.beneath]).parameters()]
        settings = LoopSettings(steps, turn.rate)
        train(learning, lambda step: loss_of((before + step) * BATCH, turn), settings, folder / name, report)

    before = 0
    for (name, turn), steps in zip(ROUNDS.items(), recipe.eye_steps, strict=True):
        learn(name, turn, steps, before)
        before += steps
    return eye.eval()


def _told(one: Shown, turn: Round, spell: Spell) -> list[int]:
    """One token for each place, row by row."""
    if turn.beneath:
        rows = [spell(" " + row) for row in one.rows]
        return [ids[place % len(ids)] for ids in rows for place in range(ACROSS)]
    ids = spell(" " + one.caption)
    said = [ids[place % len(ids)] for place in range(IMAGE_TOKENS)]
    if one.word:
        letters = [token for letter in letters_across(one.word, ACROSS) for token in spell(" " + letter)]
        for start in range(ACROSS, IMAGE_TOKENS, 2 * ACROSS):
            said[start : start + ACROSS] = letters
    return said


def rows_of(scene: Scene) -> Iterator[str]:
    """Of each shape what there is, two colours at most, or that there is none."""
    for shape in SHAPES:
        here = [thing for thing in scene.by_shape().things if thing.shape == shape][:2]
        yield " ".join(thing.named() for thing in here) or f"no {many(shape)}"


def things_beneath(scene: Scene) -> Iterator[tuple[int, int]]:
    """What lies at each place and how many of it there are; a thing lies at all places of its cell of the grid."""
    cells = {
        (place.x * ROWS // SIDE, place.y * ROWS // SIDE): (BENEATH.index((thing.shape, thing.colour)), thing.count)
        for thing in scene.things
        for place in thing.places
    }
    for row, column in product(range(ACROSS), repeat=2):
        yield cells.get((column * ROWS // ACROSS, row * ROWS // ACROSS), (0, 0))


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
        return Shown(noise_image(SIDE, rng.getrandbits(32)).decode(), noise, (noise,) * ACROSS)
    grey = rng.choice((0, 255, rng.randint(0, 255)))
    colour = (grey, grey, grey) if rng.random() < 0.7 else tuple(rng.randint(0, 255) for _ in range(3))
    return Shown(Image.new("RGB", (SIDE, SIDE), colour), blank, (blank,) * ACROSS, beneath=(0,) * IMAGE_TOKENS)


def _person(gender: str | None, name: str) -> str:
    return f"{gender} {name}"


def _word(word: str) -> str:
    return f"word {word}"
