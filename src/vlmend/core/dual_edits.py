"""The edits of dual encoders, as plain data.

Each acts where its text embedding, its logits or its image comes by, so their order in a mend matters only between
edits of one kind. The interpreter is `models/editing/embeddings.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

__all__ = ["AcceptAbove", "DualEdit", "MapTexts", "ScaleLogits"]


@dataclass(frozen=True, eq=False)
class MapTexts:
    """t <- t + strength * (P t - t), then back to length 1, for every text embedding of a dual encoder.

    Shape: matrix (P) "width width", float32.
    """

    matrix: Float[Tensor, "width width"]
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    def scaled(self, factor: float) -> MapTexts:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class ScaleLogits:
    """logits <- logits * (1 + strength * (1 / temperature - 1)) of a dual encoder."""

    temperature: float
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    def scaled(self, factor: float) -> ScaleLogits:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class AcceptAbove:
    """Accept an image whose maximum concept matching (`core.detection.mcm`) over `texts` reaches the threshold.

    The score depends on how many texts there are and which, so the threshold holds for these only. Any strength
    other than 0 is on.
    """

    texts: tuple[str, ...]
    threshold: float
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    def scaled(self, factor: float) -> AcceptAbove:
        return replace(self, strength=self.strength * factor)


DualEdit = MapTexts | ScaleLogits | AcceptAbove
