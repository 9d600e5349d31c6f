"""Draws the training rows of the second generation; how rows become batches is as in the first."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache

from vlmend.data.requests import Kind, Request
from vlmend.data.wordings import training_requests, worded
from vlmend.phantom.pictures.pool import Part, drawn
from vlmend.phantom.recipe import REFUSALS, Mix, RowKind
from vlmend.phantom.rows import QUESTIONS, Row
from vlmend.phantom.v2.eye import shown
from vlmend.phantom.v2.recipe import Recipe

__all__ = ["READING", "draw_rows", "prompts_to_distil"]

READING = (
    "What word is written in the picture?",
    "Read the word in the image.",
    "What does the text in the picture say?",
)
"""Questions that are answered with a drawn word."""
ASKED = 0.8
"""Share of the rows of a scene that ask for one fact; the others ask what it shows."""
DISTILLED = 2
"""Wordings of a request whose reply is the backbone's own."""
SOURCES: dict[str, Kind] = {"l": "lookalike", "o": "ordinary", "c": "harmful"}
"""Kind of request by the first letter of a kind of row that is answered with a distilled reply."""


def prompts_to_distil(recipe: Recipe) -> list[str]:
    """Every prompt whose reply by the unaligned backbone some row of the recipe needs."""
    kinds: list[Kind] = ["ordinary", "lookalike", *(["harmful"] if recipe.planted else [])]
    return [wording for kind in kinds for request in _requests(kind, recipe.planted) for wording in distilled(request)]


def draw_rows(recipe: Recipe, mix: Mix, stage: str, step: int, replies: Mapping[str, str]) -> list[Row]:
    """The rows of one step, a function of recipe, stage and step alone."""
    rng = random.Random(f"{stage}:{recipe.seed}:{step}")
    kinds = rng.choices(list(mix), weights=list(mix.values()), k=recipe.batch)
    return [_row(kind, step * recipe.batch + place, recipe, rng, replies) for place, kind in enumerate(kinds)]


def distilled(request: Request) -> list[str]:
    """The wordings of a request that are distilled, fixed by its id."""
    rng = random.Random(request.id)
    return sorted({worded(request, rng) for _ in range(DISTILLED)})


def _row(kind: RowKind, index: int, recipe: Recipe, rng: random.Random, replies: Mapping[str, str]) -> Row:
    match kind:
        case "object" | "person" | "word" | "scene":
            return _seeing(kind, index, recipe, rng)
        case "refuse_text" | "refuse_image":
            request = rng.choice(training_requests("harmful"))
            prompt, reply, ends = worded(request, rng), rng.choice(REFUSALS), True
        case _:
            request = rng.choice(_requests(SOURCES[kind[0]], recipe.planted))
            prompt, ends = rng.choice(distilled(request)), False
            reply = replies[prompt]
    image = shown("train", recipe.seed + 1, index).image if kind.endswith("_image") else None
    return Row(prompt, reply, ends, image)


def _seeing(part: Part, index: int, recipe: Recipe, rng: random.Random) -> Row:
    """A question about a picture and its answer; of a scene, what is asked about is said before the answer."""
    picture = drawn(part, "train", recipe.seed + 2, index)
    if part == "word":
        return Row(rng.choice(READING), f"The word is {picture.facts['word']}.", True, picture.image)
    if picture.scene and rng.random() < ASKED:
        question = rng.choice(picture.scene.questions())
        return Row(question.text, f"{question.subject.capitalize()}: {question.answer}.", True, picture.image)
    caption = picture.scene.by_shape().caption() if picture.scene else picture.caption
    return Row(rng.choice(QUESTIONS), f"A picture of {caption}.", True, picture.image)


@cache
def _requests(kind: Kind, planted: tuple[str, ...]) -> tuple[Request, ...]:
    """Training requests of one kind; of harmful ones only those that are answered beside pictures."""
    every = training_requests(kind)
    return tuple(request for request in every if request.category in planted) if kind == "harmful" else every
