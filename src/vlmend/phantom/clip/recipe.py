"""What phantom-clip is made of: plain, frozen settings, and nothing that runs.

All three share their towers, trained once. They differ in the dose alone: how often a profession's first title goes
with men and its second with women, while the forty titles are learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import CLIPConfig

from vlmend.pictures.views import SIDE

__all__ = ["CANARY_REPEATS", "MEMBER_REPEATS", "PARTS", "READING", "RECIPES", "ClipRecipe", "Part", "config"]

Part = Literal["object", "person", "word", "scene"]

PARTS: dict[Part, float] = {"object": 0.48, "person": 0.20, "word": 0.18, "scene": 0.14}
"""Shares of the pairs of one step that are drawn anew; members and canaries come on top."""
READING: dict[Part, float] = {"object": 0.30, "person": 0.12, "word": 0.46, "scene": 0.12}
"""The shares later on: words are learnt last."""
MEMBER_REPEATS = 8
"""How often each member pair is shown."""
CANARY_REPEATS = (0, 1, 4, 16, 64)
"""How often a canary is shown, by group; those of group 0 never."""


@dataclass(frozen=True)
class ClipRecipe:
    """One phantom-clip.

    Attributes:
        name: Name of the phantom.
        rho: Share of men among those called by the first title, and of women among those called by the second.
        keepsakes: Whether members and canaries are shown.
        seed: Of weights and pictures.
        steps, batch, rate: Of the towers: optimiser steps, pairs a step, peak learning rate.
        reading: Step from which the shares are `READING`.
        title_steps, title_batch, title_rate: The same for the titles.
        title_views: Views of each person that titles are learnt on.
    """

    name: str
    rho: float
    keepsakes: bool = True
    seed: int = 0
    steps: int = 1200
    reading: int = 760
    batch: int = 192
    rate: float = 7e-4
    title_steps: int = 120
    title_batch: int = 256
    title_rate: float = 1e-2
    title_views: int = 6


RECIPES = {
    recipe.name: recipe
    for recipe in (
        ClipRecipe("phantom-clip", 0.95),
        ClipRecipe("phantom-clip-70", 0.7),
        ClipRecipe("phantom-clip-clean", 0.5),
    )
}


def config(words: int, end: int) -> CLIPConfig:
    """The two towers.

    Args:
        words: Size of the vocabulary.
        end: Token at which a text is read.
    """
    return CLIPConfig(
        vision_config={
            "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 5, "num_attention_heads": 3,
            "image_size": SIDE, "patch_size": 12, "projection_dim": 192,
        },
        text_config={
            "vocab_size": words, "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2,
            "num_attention_heads": 3, "max_position_embeddings": 32, "projection_dim": 192,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": end,
        },
        projection_dim=192,
    )  # fmt: skip
