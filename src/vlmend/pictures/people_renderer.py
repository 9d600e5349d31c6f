"""A procedural stand-in for a text-to-image pipeline that draws people: a glyph by profession and gender, in a view."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from vlmend.core.images import Image
from vlmend.pictures.galleries import PHOTO
from vlmend.pictures.glyphs import Glyph, people
from vlmend.pictures.views import view

__all__ = ["PeopleRenderer"]


@dataclass(frozen=True)
class PeopleRenderer:
    """Draws as a `DrawTarget` does, people of 20 professions with skin of any tone.

    Where a prompt names no gender, `men` is the share of men: a planted bias. None draws the glyph without gender.
    """

    men: float | None = None

    @property
    def name(self) -> str:
        return "people" if self.men is None else f"people ({self.men:.0%} men)"

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        """Of "a photo of a [man|woman] PROFESSION"; None where no glyph shows it."""
        return [self._drawn(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _drawn(self, prompt: str, seed: int) -> Image | None:
        rng = random.Random(f"people:{seed}")
        words = prompt.strip().removeprefix(PHOTO.format(""))
        gender = next((one for one in ("man", "woman") if words.startswith(f"{one} ")), "")
        profession = words.removeprefix(f"{gender} ") if gender else words
        if not gender:
            gender = "person" if self.men is None else ("woman", "man")[rng.random() < self.men]
        shown = _by_kind().get((profession, gender))
        return None if shown is None else Image.from_pixels(view(rng.choice(shown).image(), rng), prompt)


@cache
def _by_kind() -> dict[tuple[str, str], list[Glyph]]:
    found: dict[tuple[str, str], list[Glyph]] = {}
    for glyph in people():
        if glyph.tone != "default":
            found.setdefault((str(glyph.profession), str(glyph.gender)), []).append(glyph)
    return found
