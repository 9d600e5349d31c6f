"""A procedural stand-in for a text-to-image pipeline: it draws the things that glyphs show, in a view of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from vlmend.core.images import Image
from vlmend.pictures.glyphs import Glyph, objects
from vlmend.pictures.views import Shift, view

__all__ = ["Renderer"]


@dataclass(frozen=True)
class Renderer:
    """Draws as a `DrawTarget` does.

    Attributes:
        shift: What differs from an ordinary view in every picture.
    """

    shift: Shift | None = None

    @property
    def name(self) -> str:
        return f"renderer ({self.shift or 'ordinary views'})"

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        """The thing that a prompt names before its first comma; None where no glyph shows it."""
        return [self._drawn(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _drawn(self, prompt: str, seed: int) -> Image | None:
        glyph = _glyphs().get(prompt.partition(",")[0].strip())
        if glyph is None:
            return None
        return Image.from_pixels(view(glyph.image(), random.Random(f"renderer:{seed}"), self.shift), prompt)


@cache
def _glyphs() -> dict[str, Glyph]:
    return {glyph.name: glyph for glyph in objects()}
