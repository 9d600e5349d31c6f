"""Questions about scenes of the mini world, for fits, audits, attacks and what they carry over to."""

from __future__ import annotations

import random
from typing import get_args

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.phantom.drawn import drawn_set
from vlmend.phantom.mini.scenes import QuestionKind, scene

__all__ = ["QUESTIONS", "questions"]

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


QUESTIONS = drawn_set(
    "phantom_mini_questions", "robustness", "questions about scenes that no phantom-mini was shown",
    lambda: questions(), phantom="phantom-mini",
    caution="the words are those of the mini world, which other models need not know",
)  # fmt: skip
