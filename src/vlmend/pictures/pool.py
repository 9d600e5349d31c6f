"""The pool of pictures: every one is a pure function of its part, split, seed, index and shift.

The two splits of a part draw from different random streams: a held-out picture is another view of the same things, and
not one that was trained on. Which things or words are held out as such is for a recipe to say.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from vlmend.pictures.glyphs import Glyph, objects, people
from vlmend.pictures.scenes import Scene, drawn_scene, scene
from vlmend.pictures.views import Shift, view
from vlmend.pictures.words import WORDS, drawn_word

__all__ = ["Drawn", "Part", "Split", "drawn", "phrase", "sentence"]

Part = Literal["object", "person", "word", "scene"]
Split = Literal["train", "held_out"]

UNCOUNTED = {
    "bacon", "bowling", "bread", "broccoli", "butter", "candy", "cheese", "chocolate", "coffee", "coral", "corn",
    "fire", "garlic", "ginger", "golf", "honey", "ice cream", "lacrosse", "lettuce", "lightning", "lotion",
    "meat", "milk", "money", "nail polish", "ping pong", "popcorn", "pudding", "rain", "ramen", "recycling", "rice",
    "salad", "snow", "soap", "soda", "spaghetti", "stew", "sushi", "tea", "toilet paper", "yarn",
}  # fmt: skip
SINGULAR_IN_S = {
    "abacus", "bus", "cactus", "circus", "compass", "dress", "hibiscus", "hourglass", "kiss", "lotus",
    "magnifying glass", "octopus",
}  # fmt: skip
ARTICLES = {"hourglass": "an", "ufo": "a", "unicorn": "a"}
"""Where the first letter misleads about the sound."""


@dataclass(frozen=True)
class Drawn:
    """One picture of the pool.

    Attributes:
        image: RGB, 72 x 72.
        caption: What it shows, as words that follow "a picture of" ("a hammer", "two red circles and one blue square").
        facts: What is known of it. Of an object or a person: id, name and category, and profession, gender and tone;
            of a word: word; of a scene: each question with its answer.
        scene: The scene, of a picture of shapes.
    """

    image: Image.Image
    caption: str
    facts: Mapping[str, str]
    scene: Scene | None = None


def drawn(part: Part, split: Split, seed: int, index: int, shift: Shift | None = None) -> Drawn:
    """Draw one picture; the same arguments give the same pixels, caption and facts.

    What a picture shows does not depend on the shift, only how.
    """
    rng = random.Random(f"{part}:{split}:{seed}:{index}")
    if part == "word":
        word = rng.choice(WORDS)
        return Drawn(drawn_word(word, rng, shift=shift), f'the word "{word}"', {"word": word})
    if part == "scene":
        shapes = scene(rng)
        facts = {question.text: question.answer for question in shapes.questions()}
        return Drawn(drawn_scene(shapes, rng, shift), shapes.caption(), facts, shapes)
    glyph = rng.choice(objects() if part == "object" else people())
    return Drawn(view(glyph.image(), rng, shift), phrase(glyph.name), _facts(glyph))


def sentence(caption: str) -> str:
    """A caption as a reply has it: "A picture of a hammer."."""
    return f"A picture of {caption}."


def phrase(name: str) -> str:
    """A name as a sentence has it: "a hammer", "an egg", "bread", "socks"."""
    last = name.split()[-1]
    if name in UNCOUNTED or (last.endswith("s") and name not in SINGULAR_IN_S):
        return name
    return f"{ARTICLES.get(name, 'an' if name[0] in 'aeiou' else 'a')} {name}"


def _facts(glyph: Glyph) -> dict[str, str]:
    facts = {"id": glyph.id, "name": glyph.name, "category": glyph.category}
    if glyph.gender and glyph.tone:
        facts |= {"profession": glyph.profession, "gender": glyph.gender, "tone": glyph.tone}
    return facts
