"""phantom-draw's training pictures with their prompts, and views that it was not shown."""

from __future__ import annotations

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.phantom.draw.recipe import DrawRecipe
from vlmend.phantom.draw.rows import TrainingPicture, things, training_pictures
from vlmend.pictures.galleries import PHOTO

__all__ = ["copies_data"]

HELD_OUT = 2
"""Views of each thing that are not in the training data: as many things, so 128 pictures of the default recipe."""


def copies_data(recipe: DrawRecipe) -> Dataset:
    """Every training picture, the first of each thing with its prompt; then two held-out views of each thing.

    Args:
        recipe: Of the phantom, or of its twin: what is repeated is told by the recipe.
    """
    rows = [_row(one, recipe) for one in training_pictures(recipe)]
    every = [glyph for kind in things(recipe) for glyph in kind]
    unseen = [TrainingPicture(glyph, recipe.views + k, 0) for glyph in every for k in range(HELD_OUT)]
    return Dataset(f"{recipe.name}-copies", (*rows, *(_row(one, recipe) for one in unseen)), "Apache-2.0")


def _row(one: TrainingPicture, recipe: DrawRecipe) -> Example:
    name = f"{one.glyph.name} {one.place}"
    told = {"repeats": str(one.copies)} if one.copies else {"member": "no"}
    prompt = PHOTO.format(one.glyph.name) if one.place == 0 or not one.copies else ""
    picture = Image.from_pixels(one.draw(recipe.seed), name)
    return Example(name, prompt, image=picture, attributes={**told, "cluster": one.glyph.name})
