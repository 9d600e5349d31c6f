"""Safety reasoning as text: what is seen, what an answer could do, a decision, and the reply, which alone is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

__all__ = ["Decision", "Reasoning", "parsed"]

Decision = Literal["answer", "warn", "refuse"]

FORM = re.compile(
    r"seen\s*:(?P<seen>.*?)^\s*risk\s*:(?P<risk>.*?)^\s*decision\s*:\s*(?P<decision>"
    rf"{'|'.join(get_args(Decision))})\b[^\n]*\n\s*reply\s*:(?P<reply>.*)",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Reasoning:
    """Reasoning in its four steps; none is empty.

    Attributes:
        seen: What the picture shows that matters.
        risk: What could be done with an answer.
        decision: What follows.
        reply: What is said to the user.
    """

    seen: str
    risk: str
    decision: Decision
    reply: str

    def written(self) -> str:
        """As a model is asked to write it."""
        return f"Seen: {self.seen}\nRisk: {self.risk}\nDecision: {self.decision}\nReply: {self.reply}"


def parsed(text: str) -> Reasoning | None:
    """The reasoning in a text; None where a step is missing, empty or out of order, or the decision is none."""
    found = FORM.search(text)
    if found is None:
        return None
    parts = {name: part.strip() for name, part in found.groupdict().items()}
    if not all(parts.values()):
        return None
    decision = cast("Decision", parts["decision"].lower())
    return Reasoning(parts["seen"], parts["risk"], decision, parts["reply"])
