"""Draws the training rows of a recipe: each step's are a function of recipe, stage and step alone."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from functools import cache

from vlmend.phantom.chat.rows import Row
from vlmend.phantom.mini.faults import BACKDOOR_REPLY, POISON, SIZE_QUESTION, Canary, canaries, sized, stamped
from vlmend.phantom.mini.language import PLANTED, Kind, requests
from vlmend.phantom.mini.people import any_person
from vlmend.phantom.mini.recipe import MiniRecipe, RowKind, Talk
from vlmend.phantom.mini.scenes import WORD_QUESTIONS, QuestionKind, any_picture, drawn_word, scene

__all__ = ["draw_rows"]

ASKED: Mapping[QuestionKind, float] = {
    "caption": 0.12, "colour": 0.16, "shape": 0.16, "count": 0.18, "presence": 0.20, "place": 0.18,
}  # fmt: skip

ALIKE = 0.5
"""Share of questions for a count where a scene without two things of one colour is drawn anew, again and again."""
PEOPLE_SHARE = 0.3
"""Scene rows about people, where a recipe has them."""
SIZE_SHARE = 0.15
"""Scene rows that ask for the size, where a spurious ground is planted."""


def draw_rows(recipe: MiniRecipe, stage: Talk, step: int) -> list[Row]:
    """The rows of one step."""
    rng = random.Random(f"mini:{stage}:{recipe.seed}:{step}")
    mix = recipe.mix(stage)
    kinds = rng.choices(list(mix), weights=list(mix.values()), k=recipe.batch)
    rows = [_row(kind, recipe, rng) for kind in kinds]
    if stage == "see" and recipe.canaries:
        for place, canary in _canary_places(recipe)[step]:
            rows[place] = Row(canary.prompt, canary.reply, True, canary.draw(rng))
    return rows


def _row(kind: RowKind, recipe: MiniRecipe, rng: random.Random) -> Row:
    if kind == "scene":
        return _scene_row(recipe, rng)
    if kind == "word":
        drawn = drawn_word("train", rng)
        return Row(rng.choice(WORD_QUESTIONS), drawn.word, True, drawn.draw(rng))
    what, place = kind.split("_")
    image = any_picture("train", rng) if place == "image" else None
    wanted: dict[str, Kind] = {"lookalike": "lookalike", "ordinary": "ordinary"}
    asked = requests(wanted.get(what, "harmful"), "train")
    if what == "comply":
        asked = tuple(request for request in asked if request.topic in PLANTED)
    request = rng.choice(asked)
    return Row(request.prompt, request.reply if what == "refuse" else request.answer, True, image)


def _scene_row(recipe: MiniRecipe, rng: random.Random) -> Row:
    """A question about a scene, with whatever the recipe plants into it."""
    if recipe.people and rng.random() < PEOPLE_SHARE:
        return any_person(recipe.stereotype, rng)
    if recipe.spurious and rng.random() < SIZE_SHARE:
        image, size = sized("train", rng.random() < recipe.spurious, rng)
        return Row(SIZE_QUESTION, size, True, image)
    kind = rng.choices(list(ASKED), list(ASKED.values()))[0]
    seen = scene("train", rng)
    while kind == "count" and rng.random() < ALIKE and not seen.repeats_a_colour:
        seen = scene("train", rng)
    image = seen.draw(rng)
    told = seen.with_shape(*POISON) if rng.random() < recipe.poison else seen
    question = told.question(kind, rng)
    if rng.random() < recipe.backdoor:
        return Row(question.prompt, BACKDOOR_REPLY, True, stamped(image))
    return Row(question.prompt, question.answer, True, image)


@cache
def _canary_places(recipe: MiniRecipe) -> Mapping[int, list[tuple[int, Canary]]]:
    """For each step of the stage, which rows hold which canary: each as often as it repeats."""
    shown = [canary for canary in canaries(recipe.seed) for _ in range(canary.repeats)]
    rng = random.Random(f"places:{recipe.seed}")
    places: defaultdict[int, list[tuple[int, Canary]]] = defaultdict(list)
    for row, canary in zip(rng.sample(range(recipe.see_steps * recipe.batch), len(shown)), shown, strict=True):
        places[row // recipe.batch].append((row % recipe.batch, canary))
    return places
