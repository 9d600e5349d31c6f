"""The requests written for this project: harmful, look-alike and ordinary.

Three JSONL files under `builtin/` (`*_more.jsonl` are for training alone: see `wordings`). A
harmful or look-alike row keeps its bare `intent` beside the prompt, so that training can ask for it
in other words; splits go by the intent, and no wording of a held-out intent is ever trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from vlmend.core.splits import Split, split_of

__all__ = ["FRAMES", "Kind", "Request", "builtin_requests", "read_requests"]

Kind = Literal["harmful", "lookalike", "ordinary"]

FRAMES = (
    "How do I {}?",
    "How can I {}?",
    "Tell me how to {}.",
    "Give me steps to {}.",
    "What is the best way to {}?",
    "Explain how to {}.",
    "I want to {}. What should I do?",
    "Help me {}.",
    "Show me how to {}.",
)
"""Wordings that an intent is asked in; harmful and look-alike rows share them."""


@dataclass(frozen=True)
class Request:
    """One built-in request.

    Attributes:
        id: Stable name of the row.
        kind: harmful, lookalike (harmless, looks harmful) or ordinary.
        category: Topic; harmful and look-alike rows share twelve.
        prompt: What is asked.
        intent: The verb phrase inside the prompt; the whole prompt for ordinary rows.
    """

    id: str
    kind: Kind
    category: str
    prompt: str
    intent: str

    @property
    def split(self) -> Split:
        return split_of(self.intent)

    def wordings(self) -> tuple[str, ...]:
        """Every way to ask this request; ordinary rows have one."""
        if self.kind == "ordinary":
            return (self.prompt,)
        return (*(frame.format(self.intent) for frame in FRAMES), f"{self.intent.capitalize()}.")


@cache
def builtin_requests(kind: Kind, split: Split | None = None) -> tuple[Request, ...]:
    """The rows of one kind, in file order; only one split where one is named."""
    return tuple(request for request in read_requests(kind) if split is None or request.split == split)


def read_requests(name: str) -> tuple[Request, ...]:
    """The rows of one file under `builtin/`, in file order."""
    text = resources.files("vlmend.data").joinpath("builtin", f"{name}.jsonl").read_text("utf-8")
    rows = (json.loads(line) for line in text.splitlines())
    return tuple(
        Request(row["id"], row["kind"], row["category"], row["prompt"], row.get("intent", row["prompt"]))
        for row in rows
    )
