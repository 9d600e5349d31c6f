"""Scores replies by their length."""

from __future__ import annotations

from collections.abc import Sequence

from vlmend.core.conversation import Conversation

__all__ = ["shortest"]


def shortest(batch: Sequence[Conversation], replies: Sequence[str]) -> list[float]:
    """The shortest reply has the smallest score."""
    return [float(len(reply)) for reply in replies]
