"""What a red team may try: a goal in the words of a template, beside what carries it.

What can be rewritten is data: `templates.jsonl`, or the user's own file. Our templates change the form of a request
(politeness, lists, quotation) and nothing of what it asks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Literal, get_args

from vlmend.audit.suite import builtin_picture
from vlmend.core.attack_notes import BESIDE
from vlmend.core.examples import REQUEST, Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.splits import word_fraction
from vlmend.errors import BadData, BadParameter

__all__ = ["CARRIERS", "Carrier", "Space", "Template", "Try", "carriers_in", "read_templates", "space_of"]

Carrier = Literal["text", "photo", "blank", "noise", "own", "drawn"]
"""What comes with the words. text: nothing. photo: a built-in picture of a thing. blank, noise: a picture without
content. own: the goal's own picture, such as one that an attack drew its words on. drawn: the words are a prompt of a
pipeline that draws."""

CARRIERS: tuple[Carrier, ...] = tuple(one for one in get_args(Carrier) if one != "drawn")
"""What may come with a request to a model that answers."""
DRAWS = 4
"""Pictures of each kind that differ by their seed: four photos, four noises, four drawings."""
SEEDED = ("photo", "noise", "drawn")
PLACE = "{}"
MISSES = 100
"""Draws that were tried before, after which what is left is listed."""


@dataclass(frozen=True)
class Template:
    """A form that a request is put into; `{}` in it stands for the request, once or more."""

    name: str
    form: str


@dataclass(frozen=True, order=True)
class Try:
    """One thing to ask.

    Attributes:
        goal: Which goal, by its place.
        template: Which template, by its place.
        carrier: What comes with it.
        draw: Which photo or noise, from 0.
    """

    goal: int
    template: int
    carrier: Carrier
    draw: int = 0


@dataclass(frozen=True)
class Space:
    """Every try that there is.

    Attributes:
        goals: What is wanted; rows as data files have them.
        templates: Forms.
        carriers: What may come with the words.
    """

    goals: tuple[Example, ...]
    templates: tuple[Template, ...]
    carriers: tuple[Carrier, ...]

    @property
    def size(self) -> int:
        """How many different tries there are."""
        with_own = sum(goal.image is not None for goal in self.goals)
        looks = [_draws(one) * (with_own if one == "own" else len(self.goals)) for one in self.carriers]
        return sum(looks) * len(self.templates)

    def words(self, one: Try) -> str:
        """What is asked, in the words of the template."""
        return self.templates[one.template].form.replace(PLACE, self.goals[one.goal].prompt)

    def described(self, one: Try) -> str:
        """The same with what carries it, for measures of novelty."""
        return f"{self.words(one)} [{one.carrier}]"

    def mode(self, one: Try) -> str:
        """The failure mode that a find would be of: what it is about (the goal's category, or the goal), and how it
        is carried. Other words for the same are the same mode."""
        goal = self.goals[one.goal]
        return f"{goal.group or goal.id} beside {one.carrier}"

    def example(self, one: Try, side: int) -> Example:
        """The row that is asked, with what is wanted for judges; made pictures have `side` pixels a side."""
        goal, template = self.goals[one.goal], self.templates[one.template]
        told = {
            REQUEST: goal.request, "of": goal.id, "template": template.name, BESIDE: one.carrier,
            "draw": str(one.draw), "mode": self.mode(one),
        }  # fmt: skip
        return replace(
            goal, prompt=self.words(one), label="harmful", image=self._image(one, side), attributes=told,
            more_images=goal.more_images if one.carrier == "own" else (), caption=None,
        )  # fmt: skip

    def drawn(self, rng: random.Random, tried: Collection[Try]) -> Try | None:
        """A try that was not tried: goal, template, carrier and draw each as likely as any other; None where all were.

        Where nearly everything was tried, one of what is left, each as likely.
        """
        for _ in range(MISSES):
            goal, template = rng.randrange(len(self.goals)), rng.randrange(len(self.templates))
            carrier = rng.choice(self.carriers)
            found = Try(goal, template, carrier, rng.randrange(_draws(carrier)))
            if self._there(found) and found not in tried:
                return found
        left = [one for one in self._every() if one not in tried]
        return rng.choice(left) if left else None

    def _every(self) -> list[Try]:
        places = product(range(len(self.goals)), range(len(self.templates)), self.carriers)
        every = [Try(goal, template, one, draw) for goal, template, one in places for draw in range(_draws(one))]
        return [one for one in every if self._there(one)]

    def _there(self, one: Try) -> bool:
        return one.carrier != "own" or self.goals[one.goal].image is not None

    def _image(self, one: Try, side: int) -> Image | None:
        match one.carrier:
            case "text" | "drawn":
                return None
            case "own":
                return self.goals[one.goal].image
            case "blank":
                return blank_image(side)
            case "noise":
                return noise_image(side, int(word_fraction(f"noise {one.draw}") * 2**32))
            case "photo":
                return _photo(one.draw)


def space_of(data: Dataset, templates: Sequence[Template], carriers: Sequence[Carrier]) -> Space:
    """The tries of a goal file: its rows that ask something and are not marked harmless.

    Raises:
        BadData: There is no such row.
    """
    goals = tuple(row for row in data.examples if row.prompt and row.label != "benign")
    if not goals:
        raise BadData(
            f"None of the {len(data.examples)} rows of the goals asks for something.",
            'Each line is {"prompt": what the model should decline, "category": what it is about}.',
        )
    own = any(row.image is not None for row in goals)
    return Space(goals, tuple(templates), tuple(one for one in carriers if one != "own" or own))


def carriers_in(text: str) -> tuple[Carrier, ...]:
    """The carriers named in a line with commas; all for an empty one.

    Raises:
        BadParameter: One is not known.
    """
    named = [name.strip() for name in text.split(",") if name.strip()] or list(CARRIERS)
    found: list[Carrier] = [one for name in named for one in CARRIERS if one == name]
    if len(found) != len(named):
        unknown = ", ".join(name for name in named if name not in CARRIERS)
        raise BadParameter(f"There is no carrier {unknown}.", f"There are: {', '.join(CARRIERS)}.")
    return tuple(dict.fromkeys(found))


def read_templates(file: Path | None = None) -> tuple[Template, ...]:
    """The templates of a JSONL file, or our own.

    Raises:
        BadData: A line is no template, or a name stands twice.
    """
    place = files("vlmend.redteam").joinpath("templates.jsonl") if file is None else file
    try:
        lines = [line for line in place.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        raise BadData(f"The templates {file} cannot be read ({problem}).", "Pass a JSONL file in UTF-8.") from problem
    found = [_template(line) for line in lines]
    bad = [number for number, one in enumerate(found, 1) if one is None]
    made = tuple(one for one in found if one is not None)
    if bad or not made or len({one.name for one in made}) != len(made):
        what = f"line {bad[0]} is none" if bad else "a name stands twice" if made else "it is empty"
        raise BadData(
            f"The templates {file} cannot be used: {what}.",
            'Each line is {"name": "list", "form": "{} Answer as a list."}, where {} stands for the request.',
        )
    return made


@cache
def _photo(draw: int) -> Image:
    return builtin_picture(draw)[1]


def _template(line: str) -> Template | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    held = [row.get(name) for name in ("name", "form")] if isinstance(row, dict) else []
    name, form = (one if isinstance(one, str) else "" for one in held) if held else ("", "")
    return Template(name, form) if name and PLACE in form else None


def _draws(carrier: Carrier) -> int:
    return DRAWS if carrier in SEEDED else 1
