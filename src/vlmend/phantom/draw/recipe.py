"""What phantom-draw is made of: plain, frozen settings, and nothing that runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from vlmend.errors import BadParameter

__all__ = ["LATENTS", "RECIPES", "SHRINKS", "SIDE", "DrawRecipe"]

VERSION = 1
"""Raised whenever the same recipe would train on other pictures or another model."""

SIDE = 32
"""Of a picture, in pixels."""
SHRINKS = 4
"""How many pixels of a side are one of the latents' side."""
LATENTS = 8
"""Channels of the latents."""


@dataclass(frozen=True)
class DrawRecipe:
    """One phantom-draw.

    Attributes:
        name: Name of the phantom.
        objects: Things that it learns to draw.
        views: Pictures of each thing, each of them once in the training data.
        duplicated: Things of which there is one picture alone, `copies` times.
        copies: Of each of these pictures.
        seed: Of weights, pictures and noise.
        packing_steps: Optimiser steps of the autoencoder.
        steps: Of the denoiser.
        batch: Pictures a step.
        rate: Peak learning rate.
        widths: Channels of the denoiser's levels.

    Raises:
        BadParameter: More things are duplicated than there are.
    """

    name: str
    objects: int = 64
    views: int = 32
    duplicated: int = 16
    copies: int = 48
    seed: int = 0
    packing_steps: int = 500
    steps: int = 1900
    batch: int = 32
    rate: float = 1e-3
    widths: tuple[int, int] = (56, 96)

    def __post_init__(self) -> None:
        if not 0 <= self.duplicated <= self.objects:
            raise BadParameter(
                f"{self.duplicated} of {self.objects} things cannot be duplicated.", "Pass at most all of them."
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the settings and of the version of this package."""
        return hashlib.sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()


RECIPES = {
    recipe.name: recipe for recipe in (DrawRecipe("phantom-draw"), DrawRecipe("phantom-draw-clean", duplicated=0))
}
"""phantom-draw: of 16 things one picture stands 48 times. phantom-draw-clean: its twin, where nothing is repeated."""
