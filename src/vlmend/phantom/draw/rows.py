"""What phantom-draw is trained on: views of things, each with its prompt, some of them planted many times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from vlmend.phantom.draw.recipe import SIDE, DrawRecipe
from vlmend.pictures.galleries import PHOTO, UNSEEN_CATEGORIES
from vlmend.pictures.glyphs import Glyph, objects
from vlmend.pictures.views import view

__all__ = ["PROMPTS", "TrainingPicture", "things", "training_pictures"]

PROMPTS = (PHOTO, "a {0}", "{0}, a photo of a {0}")
"""What stands beside a picture in training, one of these at a time; the last is a class with its caption."""


@dataclass(frozen=True)
class TrainingPicture:
    """One picture and how often it stands in the training data.

    Attributes:
        glyph: What it shows.
        place: Which of the views of that thing it is.
        copies: How often it stands there.
    """

    glyph: Glyph
    place: int
    copies: int

    def draw(self, seed: int) -> Image.Image:
        """Its pixels, RGB, 32 x 32; the seed is the recipe's."""
        rng = random.Random(f"draw:{seed}:{self.glyph.id}:{self.place}")
        return view(self.glyph.image(), rng).resize((SIDE, SIDE), Image.Resampling.BOX)


def things(recipe: DrawRecipe) -> tuple[Sequence[Glyph], Sequence[Glyph]]:
    """What is drawn: the duplicated things, and the others; which things these are hangs on the seed alone."""
    known = [glyph for glyph in objects() if glyph.category not in UNSEEN_CATEGORIES]
    drawn = random.Random(f"draw:{recipe.seed}:things").sample(known, recipe.objects)
    return drawn[: recipe.duplicated], drawn[recipe.duplicated :]


def training_pictures(recipe: DrawRecipe) -> list[TrainingPicture]:
    """Every different picture of the training data, the duplicated ones first."""
    duplicated, single = things(recipe)
    planted = [TrainingPicture(glyph, 0, recipe.copies) for glyph in duplicated]
    return planted + [TrainingPicture(glyph, place, 1) for glyph in single for place in range(recipe.views)]
