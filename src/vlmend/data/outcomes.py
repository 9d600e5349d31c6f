"""Pictures of people with a yes or no that is to be decided, for audits of group outcomes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import PIL.Image

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.pictures.galleries import PHOTO, people_by_cell, professions

__all__ = ["NO", "OUTCOME", "YES", "answer_of", "noisy_for", "people_outcomes", "people_with_answers"]

OUTCOME, YES, NO = "outcome", "yes", "no"
"""The attribute that holds the right answer of a picture, or what a text stands for, and its values."""


def answer_of(profession: str) -> str:
    """Every other profession is a yes."""
    return (YES, NO)[professions().index(profession) % 2]


def people_with_answers(split: Split) -> Dataset:
    """The people by gender and tone, each with the answer of the profession; nothing to say it with."""
    people = people_by_cell(split)
    rows = tuple(
        replace(row, group="", attributes={**row.attributes, OUTCOME: answer_of(row.attributes["profession"])})
        for row in people.examples
    )
    return replace(people, name=f"people-{split}-outcomes", examples=rows)


@cache
def people_outcomes(split: Split) -> Dataset:
    """The same with the professions themselves as the texts of yes and no."""
    people = people_with_answers(split)
    texts = (Example(f"text:{one}", PHOTO.format(one), attributes={OUTCOME: answer_of(one)}) for one in professions())
    return replace(people, examples=(*people.examples, *texts))


def noisy_for(data: Dataset, name: str, group: str, strength: float, seed: int) -> Dataset:
    """The pictures of one group as a worse camera would take them: Gaussian noise of that strength, 0 to 1."""
    rng = np.random.default_rng(seed)
    rows = tuple(
        replace(row, image=_noisy(row.image, strength, rng))
        if row.image is not None and row.attributes.get(name) == group
        else row
        for row in data.examples
    )
    return replace(data, name=f"{data.name}-noisy-{group}-{strength:g}", examples=rows)


def _noisy(image: Image, strength: float, rng: np.random.Generator) -> Image:
    pixels = np.asarray(image.decode(), np.float64)
    noise = rng.normal(0, 255 * strength, pixels.shape)
    return Image.from_pixels(PIL.Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)), "noisy")
