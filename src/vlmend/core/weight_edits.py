"""Edits of weights, as plain data: for one call each, in any tower of any target. The model itself stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from vlmend.core.state_edits import Touch, When

__all__ = ["LoadAdapter", "ReplaceWeights", "WeightEdit"]


@dataclass(frozen=True, eq=False)
class LoadAdapter:
    """y <- y + strength * up (down x) at one linear module, for every token (LoRA).

    Shape: down "rank in", up "out rank", float32; the adapter's own scale is folded into `up`.
    """

    module: str
    down: Float[Tensor, "rank in"]
    up: Float[Tensor, "out rank"]
    strength: float = 1.0
    when: When = "always"

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"weights"})

    def scaled(self, factor: float) -> LoadAdapter:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class ReplaceWeights:
    """w <- w + strength * (value - w) for one parameter of the model, by its dotted name.

    Shape: value as the parameter's, float32.
    """

    parameter: str
    value: Float[Tensor, "*shape"]
    strength: float = 1.0
    when: When = "always"

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"weights"})

    def scaled(self, factor: float) -> ReplaceWeights:
        return replace(self, strength=self.strength * factor)


WeightEdit = LoadAdapter | ReplaceWeights
