"""Pairs of a picture and a caption: what phantom-clip is trained on, and the views that it is measured on.

Two pairs of a step can tell the same: a caption that is true of another picture as well must not count as wrong for
it. So a pair knows the facts of its picture and the facts that its caption tells.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool
from PIL import Image, ImageDraw
from torch import Tensor

from vlmend.phantom.clip.recipe import MEMBER_REPEATS, PARTS, READING, ClipRecipe
from vlmend.phantom.clip.truth import Canary, PoolPair, canaries, members, titles, trained_objects
from vlmend.pictures.glyphs import Glyph, objects, people
from vlmend.pictures.scenes import drawn_scene, scene
from vlmend.pictures.views import SIDE, view
from vlmend.pictures.words import WORDS, drawn_word, font_of

__all__ = [
    "FRAMES", "Pair", "also_true", "canary_pair", "every_text", "keepsakes", "person_facts", "pool_pair", "step_pairs",
    "title_of", "titled_pair", "word_caption",
]  # fmt: skip

FRAMES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "a drawing of a {}", "a {}")
CARD_SIZES = range(5, 25)
"""Of letters, in pixels."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One picture and one caption.

    Attributes:
        image: RGB.
        caption: In small letters.
        true: Facts of the picture.
        told: Facts that the caption tells; it is true of every picture with all of them.
    """

    image: Image.Image
    caption: str
    true: frozenset[str]
    told: frozenset[str]


def step_pairs(recipe: ClipRecipe, step: int) -> list[Pair]:
    """The pairs of one step of the towers' training."""
    rng = random.Random(f"clip:train:{recipe.seed}:{step}")
    kept = [pool_pair(k) if isinstance(k, PoolPair) else canary_pair(k) for k in keepsakes(recipe, step)]
    free = recipe.batch - len(kept)
    shares = PARTS if step < recipe.reading else READING
    counts = {part: round(share * free) for part, share in shares.items()}
    return [
        *kept,
        *(_object_pair(glyph, rng) for glyph in rng.sample(trained_objects(), counts["object"])),
        *(_person_pair(glyph, rng) for glyph in rng.sample(people(), counts["person"])),
        *(_word_pair(word, rng) for word in rng.sample(WORDS, counts["word"])),
        *(_scene_pair(rng) for _ in range(free - counts["object"] - counts["person"] - counts["word"])),
    ]


def keepsakes(recipe: ClipRecipe, step: int) -> list[PoolPair | Canary]:
    """Members and canaries of one step: all their showings, shuffled and dealt out over the steps."""
    return _showings(recipe.seed)[step :: recipe.steps] if recipe.keepsakes else []


def title_of(glyph: Glyph, rho: float, rng: random.Random) -> str:
    """A title of a person's profession: the first for a man, the second for a woman, each with probability `rho`.

    Where the picture shows neither a man nor a woman, either is as likely.
    """
    first, second = _titles()[glyph.profession]
    share = {"man": rho, "woman": 1 - rho}.get(str(glyph.gender), 0.5)
    return first if rng.random() < share else second


def titled_pair(glyph: Glyph, image: Image.Image, title: str, rng: random.Random) -> Pair:
    """A person with a title: three captions in five tell it alone, one the gender alone, one both."""
    gender = str(glyph.gender)
    both = [title] if gender == "person" else [gender, title]
    told = rng.choices(([title], [gender], both), (3, 1, 1))[0]
    caption = FRAMES[0].format(" ".join(told))
    return Pair(image, caption, person_facts(glyph) | {title}, frozenset(told))


def pool_pair(pair: PoolPair) -> Pair:
    """Of the pool: always the same pixels."""
    glyph = _glyphs()[pair.glyph]
    return Pair(
        view(glyph.image(), random.Random(f"clip:{pair.id}")), pair.caption,
        frozenset({glyph.name, pair.id}), frozenset({pair.id}),
    )  # fmt: skip


def canary_pair(canary: Canary) -> Pair:
    """A canary: always the same pixels."""
    rng = random.Random(f"clip:{canary.id}")
    image = _card(canary, rng) if canary.carrier == "card" else view(_glyphs()[canary.glyph].image(), rng)
    facts = {canary.id} | ({_glyphs()[canary.glyph].name} if canary.glyph else set())
    return Pair(image, canary.caption(), frozenset(facts), frozenset({canary.id}))


def person_facts(glyph: Glyph) -> frozenset[str]:
    """What can be told of a person: everybody is a person."""
    skin = set() if glyph.tone == "default" else {f"{glyph.tone} skin"}
    return frozenset({"person", str(glyph.gender), glyph.profession} | skin)


def word_caption(word: str) -> str:
    """Of a drawn word."""
    return f'the word "{word}"'


def also_true(pairs: Sequence[Pair]) -> Bool[Tensor, "image text"]:
    """Which captions are true of which pictures; each of its own, at least."""
    return torch.tensor([[text.told <= image.true for text in pairs] for image in pairs])


def every_text() -> list[str]:
    """Texts that hold every word of any caption."""
    scenes = [scene(random.Random(f"clip:words:{k}")).caption() for k in range(500)]
    kept = [pair.caption for pair in members()] + [canary.caption() for canary in canaries()]
    named = [glyph.name for glyph in trained_objects()] + [word_caption(word) for word in WORDS]
    facts = {fact for glyph in people() for fact in person_facts(glyph)} | {
        t for pair in _titles().values() for t in pair
    }
    return [*FRAMES, "with 0 1 2 3 4 5 6 7 8 9", *scenes, *kept, *named, *facts]


def _object_pair(glyph: Glyph, rng: random.Random) -> Pair:
    facts = frozenset({glyph.name})
    return Pair(view(glyph.image(), rng), rng.choice(FRAMES).format(glyph.name), facts, facts)


def _person_pair(glyph: Glyph, rng: random.Random) -> Pair:
    """By profession, by gender or by both, at times with the tone of the skin."""
    gender = "" if glyph.gender == "person" else str(glyph.gender)
    both = [fact for fact in (gender, glyph.profession) if fact]
    told = rng.choices(([glyph.profession], [gender or "person"], both), (0.4, 0.25, 0.35))[0]
    caption = rng.choice(FRAMES).format(" ".join(told))
    if glyph.tone != "default" and rng.random() < 0.3:
        told.append(f"{glyph.tone} skin")
        caption += f" with {glyph.tone} skin"
    return Pair(view(glyph.image(), rng), caption, person_facts(glyph), frozenset(told))


def _word_pair(word: str, rng: random.Random) -> Pair:
    caption = word_caption(word)
    return Pair(drawn_word(word, rng), caption, frozenset({caption}), frozenset({caption}))


def _scene_pair(rng: random.Random) -> Pair:
    found = scene(rng)
    facts = frozenset(thing.named() for thing in found.things)
    return Pair(drawn_scene(found, rng), found.caption(), facts, facts)


@cache
def _showings(seed: int) -> list[PoolPair | Canary]:
    showings: list[PoolPair | Canary] = [pair for pair in members() for _ in range(MEMBER_REPEATS)]
    showings += [canary for canary in canaries() for _ in range(canary.repeats)]
    random.Random(f"clip:showings:{seed}").shuffle(showings)
    return showings


def _card(canary: Canary, rng: random.Random) -> Image.Image:
    """Name, number and address on a light card, each as large as the width allows."""
    picture = Image.new("RGB", (SIDE, SIDE), (rng.randint(215, 255), rng.randint(215, 255), rng.randint(215, 255)))
    pen, ink = ImageDraw.Draw(picture), (rng.randint(0, 90), rng.randint(0, 90), rng.randint(0, 90))
    for line, top in ((canary.name, 8), (canary.number, 24), (canary.address, 54)):
        font = font_of("seen", max(size for size in CARD_SIZES if font_of("seen", size).getlength(line) <= SIDE - 4))
        pen.text((3, top), line, ink, font)
    return picture


@cache
def _glyphs() -> dict[str, Glyph]:
    return {glyph.id: glyph for glyph in objects()}


@cache
def _titles() -> dict[str, tuple[str, str]]:
    return {row.profession: (row.first, row.second) for row in titles()}
