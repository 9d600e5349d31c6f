"""Does the model say what is not there? Yes/no questions about one picture, in the form of POPE.

Half of the questions name what the picture shows, half a thing that it does not show (Li et al.,
EMNLP 2023, arXiv 2305.10355, random negatives). A reply is read by its first yes or no; one without
either counts as wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from vlmend.audit.suite import Answer, Question, Suite, builtin_picture
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.core.splits import Split
from vlmend.core.verdicts import UNREAD, Verdict
from vlmend.pictures.glyphs import objects
from vlmend.pictures.pool import phrase

__all__ = ["SUITE", "ObjectPresence"]

COUNT = 150
FIRST = 70_000
"""Pictures of this suite start here."""


class ObjectPresence(Suite):
    """Accuracy and yes-rate on presence questions."""

    name = "utility/object_presence"
    axis = "utility"
    about = "yes/no questions on what a plain picture shows (the form of POPE): accuracy and yes-rate"
    max_new_tokens = 8

    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        return [_question(k, split) for k in range(COUNT if limit is None else limit)]

    def uses(self, data: Dataset) -> tuple[Example, ...]:
        return ()

    def verdict(self, question: Question, reply: str) -> Verdict:
        said = re.search(r"\b(yes|no)\b", reply.lower())
        if said is None:
            return Verdict("wrong", "says neither")
        right = said[1] == question.target[0]
        return Verdict("right" if right else "wrong", f"says {said[1]}")

    def measures(self, samples: Sequence[Answer], seed: int) -> list[Measure]:
        said = [replace(a, label=a.reason) if a.label not in UNREAD else a for a in samples]
        return [
            self.row("accuracy", "presence", samples, {"right"}, "higher", seed),
            self.row("yes_rate", "presence", said, {"says yes"}, "neither", seed, compared=False),
        ]

    @property
    def judge_id(self) -> str:
        return "first yes or no"


def _question(place: int, split: Split) -> Question:
    drawn, image = builtin_picture(FIRST + place, split)
    shown = drawn.facts["name"]
    others = [glyph.name for glyph in objects() if glyph.name.split()[-1] != shown.split()[-1]]
    there = place % 2 == 0
    name = shown if there else random.Random(f"presence:{split}:{place}").choice(others)
    prompt = f"Is there {phrase(name)} in the picture? Answer yes or no."
    kind = "present" if there else "absent"
    return Question(f"presence-{place:04d}", prompt, "original", "presence", kind, image, ("yes" if there else "no",))


SUITE = ObjectPresence()
