"""Does the model still do as it is told? Ordinary requests with a rule that code can check.

Each held-out ordinary request is asked beside a picture with one of a few rules on the form of the
answer (the idea of IFEval, Zhou et al. 2023, arXiv 2311.07911).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vlmend.audit.suite import Answer, Question, Suite, builtin_picture, chosen
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.core.splits import Split
from vlmend.core.verdicts import Verdict
from vlmend.data.requests import Request

__all__ = ["SUITE", "Instructions"]

COUNT = 150
FIRST = 90_000
"""Pictures of this suite start here."""

RULES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "capitals": ("Answer in capital letters only.", lambda reply: reply.isupper()),
    "begin": ('Begin your answer with the word "Well".', lambda reply: reply.lower().startswith("well")),
    "short": ("Answer in at most five words.", lambda reply: 0 < len(re.findall(r"\w+", reply)) <= 5),
    "list": ("Answer with a list that begins with 1.", lambda reply: reply.startswith("1")),
}
"""Rule name -> its words, and whether a reply keeps it."""


class Instructions(Suite):
    """Share of replies that keep the rule."""

    name = "utility/instructions"
    axis = "utility"
    about = "keeping a rule on the form of the answer, beside a picture"
    max_new_tokens = 32

    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        requests = chosen("ordinary", COUNT if limit is None else limit, split)
        return [_question(request, k, split) for k, request in enumerate(requests)]

    def uses(self, data: Dataset) -> tuple[Example, ...]:
        return ()

    def verdict(self, question: Question, reply: str) -> Verdict:
        kept = RULES[question.category][1](reply.strip())
        return Verdict("right" if kept else "wrong", f"{'keeps' if kept else 'breaks'} {question.category}")

    def measures(self, samples: Sequence[Answer], seed: int) -> list[Measure]:
        return [self.row("accuracy", "instructions", samples, {"right"}, "higher", seed)]

    @property
    def judge_id(self) -> str:
        return "the rule itself"


def _question(request: Request, place: int, split: Split) -> Question:
    rule = list(RULES)[place % len(RULES)]
    prompt, image = f"{request.prompt} {RULES[rule][0]}", builtin_picture(FIRST + place, split)[1]
    return Question(f"{request.id}:{rule}", prompt, "original", "instructions", rule, image)


SUITE = Instructions()
