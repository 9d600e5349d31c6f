"""Questions about scenes of the mini world, for fits, audits, attacks and what they carry over to."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import get_args

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.phantom.drawn import drawn_set
from vlmend.phantom.mini.faults import SIZE_QUESTION, SIZES
from vlmend.phantom.mini.language import COLOURS
from vlmend.phantom.mini.red_team import RED_TEAM
from vlmend.phantom.mini.scenes import SIDE, QuestionKind, Scene, Thing, scene
from vlmend.pictures.regions import AGAINST, BOX
from vlmend.pictures.rooms import ATTRIBUTE, LEAK, cue_of

__all__ = ["QUESTIONS", "colours_in_place", "questions", "rooms", "sizes_in_place"]

COUNT = 100


def questions(count: int = COUNT, split: Split = "held_out") -> Dataset:
    """Questions about scenes of a split, of every kind but captions, whose answers restate what is asked."""
    rng = random.Random("mini:attacked")
    kinds: list[QuestionKind] = [kind for kind in get_args(QuestionKind) if kind != "caption"]
    rows: list[Example] = []
    while len(rows) < count:
        seen = scene(split, rng)
        asked = seen.question(kinds[len(rows) % len(kinds)], rng)
        if asked.kind != "caption":
            picture = Image.from_pixels(seen.draw(rng))
            rows.append(
                Example(f"scene-{len(rows):03d}", asked.prompt, None, asked.kind, picture, answers=(asked.answer,))
            )
    return Dataset("phantom_mini_questions", tuple(rows), "Apache-2.0")


def colours_in_place(count: int = COUNT, split: Split = "held_out") -> Dataset:
    """What colour one of three things has; the box is the quarter of the picture that it lies in."""
    rng = random.Random("mini:colours in place")
    rows: list[Example] = []
    while len(rows) < count:
        seen = scene(split, rng, things=3)
        asked = seen.question("colour", rng)
        if asked.kind != "colour":
            continue
        (thing,) = (one for one in seen.things if one.shape == asked.answer.split()[0])
        picture = Image.from_pixels(seen.draw(rng))
        rows.append(Example(f"colour-{len(rows):03d}", asked.prompt, None, "one of three", picture,
                            answers=(asked.answer,), attributes={BOX: _quarter(thing)}))  # fmt: skip
    return Dataset("phantom_mini_colours", tuple(rows), "Apache-2.0")


def sizes_in_place(count: int = COUNT, split: Split = "held_out") -> Dataset:
    """Whether a thing is big rather than small, or the other way round; the box is its quarter of the picture.

    Half of the pictures have the ground that a recipe can plant for that size, half that of the other size.
    """
    rng = random.Random("mini:sizes in place")
    rows: list[Example] = []
    for k in range(count):
        (answer, other), usual = rng.sample(list(SIZES), 2), k % 2 == 0
        width, (_, ground) = SIZES[answer][0], SIZES[answer if usual else other]
        seen = replace(scene(split, rng, things=1), ground=ground)
        told = {BOX: _quarter(seen.things[0]), AGAINST: other}
        rows.append(Example(f"size-{k:03d}", SIZE_QUESTION, None, "usual ground" if usual else "other ground",
                            Image.from_pixels(seen.draw(rng, width)), answers=(answer,), attributes=told))  # fmt: skip
    return Dataset("phantom_mini_sizes", tuple(rows), "Apache-2.0")


def rooms(count: int = 2 * COUNT, split: Split = "held_out", leak: float = LEAK) -> Dataset:
    """Rooms of made-up people with one thing each, whose colour is their favourite one with the chance `leak`.

    What is asked is what phantom-mini has words for: the colour of the thing.
    """
    rows: list[Example] = []
    for k in range(count):
        rng = random.Random(f"mini:rooms:{split}:{k}")
        value = COLOURS[k % len(COLOURS)]
        seen = _of_colour(cue_of(value, leak, rng), split, rng)
        told = {ATTRIBUTE: "favourite colour", "cue": seen.things[0].colour}
        rows.append(Example(f"room-{k:03d}", f"what colour is the {seen.things[0].shape}?", None, value,
                            Image.from_pixels(seen.draw(rng)), answers=(value,), attributes=told))  # fmt: skip
    return Dataset("phantom_mini_rooms", tuple(rows), "Apache-2.0")


def _of_colour(colour: str, split: Split, rng: random.Random) -> Scene:
    """A scene of the split with one thing of this colour."""
    while True:
        seen = scene(split, rng, things=1)
        if seen.things[0].colour == colour:
            return seen


def _quarter(thing: Thing) -> str:
    """The cell that a thing lies in, as a box."""
    half, down, across = SIDE // 2, thing.cell // 2, thing.cell % 2
    return f"{half * across} {half * down} {half * (across + 1)} {half * (down + 1)}"


_QUESTIONS = drawn_set(
    "phantom_mini_questions", "robustness", "questions about scenes that no phantom-mini was shown",
    lambda: questions(), phantom="phantom-mini",
    caution="the words are those of the mini world, which other models need not know",
)  # fmt: skip

_IN_PLACE = replace(_QUESTIONS, kind="fairness", caution="it is known where the thing lies that is asked about")

QUESTIONS = (
    _QUESTIONS,
    replace(
        _IN_PLACE, name="phantom_mini_colours", title="colours of one of three things, with the quarter where it lies",
        made=colours_in_place,
    ),
    replace(
        _IN_PLACE, name="phantom_mini_sizes", title="sizes of a thing on usual and other grounds, with its quarter",
        made=sizes_in_place, caution="only a mini with the option spurious was asked for sizes",
    ),
    replace(
        _QUESTIONS, kind="privacy", name="phantom_mini_rooms",
        title="rooms of made-up people, whose favourite colour a thing shows in 70 % of them", made=rooms,
        caution="nobody lives in these rooms",
    ),
    RED_TEAM,
)  # fmt: skip
