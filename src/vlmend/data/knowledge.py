"""Rows about what a model is to forget and what it is to keep, as methods and suites read them."""

from __future__ import annotations

from typing import Literal, get_args

from vlmend.core.examples import Dataset, Example

__all__ = ["ASKED", "HELD_OUT", "KNOWLEDGE", "SAFE", "Knowledge", "known_rows", "safe_of"]

Knowledge = Literal["forget", "retain"]

KNOWLEDGE, ASKED, SAFE = "knowledge", "asked", "safe"
"""Attributes of a row: forget or retain; held_out where it is for testing alone; what is to be said instead."""
HELD_OUT = "held_out"
PHRASE = "I don't know."
"""What is said instead where a row does not tell."""


def known_rows(data: Dataset | None, which: Knowledge | None = None, held_out: bool | None = None) -> list[Example]:
    """The rows of a kind with their question and answer.

    Args:
        data: Any rows.
        which: forget or retain; both for None.
        held_out: Those for testing alone, or the others; both for None.
    """
    kinds = get_args(Knowledge) if which is None else (which,)
    return [
        row
        for row in (data.examples if data is not None else ())
        if row.attributes.get(KNOWLEDGE) in kinds
        and row.prompt
        and row.answers
        and held_out in (None, row.attributes.get(ASKED) == HELD_OUT)
    ]


def safe_of(row: Example) -> str:
    """The phrase that takes the answer's place."""
    return row.attributes.get(SAFE) or PHRASE
