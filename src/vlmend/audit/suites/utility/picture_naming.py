"""Can the model still see? Naming what one plain picture shows.

Held-out views of Noto emoji. A reply is right when it holds the last word of the
picture's name as a word of its own (plurals count); everything else is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlmend.audit.suite import Answer, Question, Suite, builtin_picture
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.core.splits import Split
from vlmend.core.verdicts import Verdict

__all__ = ["SUITE", "PictureNaming"]

QUESTION = "What is in this picture?"
COUNT = 150
FIRST = 50_000
"""Pictures of this suite start here."""


class PictureNaming(Suite):
    """Share of pictures that are named right."""

    name = "utility/picture_naming"
    axis = "utility"
    about = "naming what a plain picture shows"
    max_new_tokens = 16
    stands_for = "sight"

    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        pictures = [builtin_picture(FIRST + k, split) for k in range(COUNT if limit is None else limit)]
        return [
            Question(f"picture-{k:04d}", QUESTION, "original", "naming", facts["category"], image, (facts["name"],))
            for k, (facts, image) in enumerate((drawn.facts, image) for drawn, image in pictures)
        ]

    def uses(self, data: Dataset) -> tuple[Example, ...]:
        return ()

    def verdict(self, question: Question, reply: str) -> Verdict:
        head = question.target[0].split()[-1]
        named = re.search(rf"\b{re.escape(head)}(?:e?s)?\b", reply.lower()) is not None
        return Verdict("right" if named else "wrong", f"{'names' if named else 'misses'} {head!r}")

    def measures(self, samples: Sequence[Answer], seed: int) -> list[Measure]:
        return [self.row("accuracy", "naming", samples, {"right"}, "higher", seed)]

    @property
    def judge_id(self) -> str:
        return "last word of the name"


SUITE = PictureNaming()
