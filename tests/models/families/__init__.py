"""Tiny random models of the real classes, one maker a family: what `test_families` and docs/models.md run on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tests.models.families import (
    crossing,
    deepseek_like,
    experts,
    gemma_like,
    grid_like,
    idefics_like,
    llava_like,
    querying,
    tiled_like,
)

from vlmend.models.vlm import VLM

__all__ = ["FAMILIES", "NEEDS", "STAND_INS", "family"]

FAMILIES: dict[str, Callable[[], VLM]] = {
    **llava_like.FAMILIES, **grid_like.FAMILIES, **tiled_like.FAMILIES, **idefics_like.FAMILIES,
    **gemma_like.FAMILIES, **deepseek_like.FAMILIES, **experts.FAMILIES, **querying.FAMILIES, **crossing.FAMILIES,
}  # fmt: skip

STAND_INS: dict[str, str] = {
    **llava_like.STAND_INS, **tiled_like.STAND_INS, **experts.STAND_INS,
}  # fmt: skip
"""Families tested without their own processor class, or with a part of it replaced, and why."""

NEEDS: dict[str, str] = {**llava_like.NEEDS, **tiled_like.NEEDS, **idefics_like.NEEDS, **experts.NEEDS}
"""What must be installed beside vlmend before a checkpoint of a family loads."""


@cache
def family(name: str) -> VLM:
    """The model of a family, made once."""
    return FAMILIES[name]()
