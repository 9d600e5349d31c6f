"""A model that is nothing but its folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """The folder of a model from elsewhere."""
    return Path(__file__).parent
