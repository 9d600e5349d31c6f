"""Words that others wrote (models, endpoints, names of files), as they may reach a terminal or a report of a build."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

KEPT = "\n\t"
HIDDEN = ("Cc", "Cs", "Co", "Cn")
DIRECTIONS = set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of what follows, so that a line reads as something else."""


def printable(text: str) -> str:
    """The same with U+FFFD for control characters (escape sequences begin with one) and marks of direction."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter in KEPT:
        return letter
    return "\ufffd" if letter in DIRECTIONS or unicodedata.category(letter) in HIDDEN else letter
