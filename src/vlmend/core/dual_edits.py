"""The edits of dual encoders, as plain data.

Each acts where its text embedding, its logits or its image comes by, so their order in a mend matters only between
edits of one kind. The interpreters are `models/editing/embeddings.py` and, of tokens, `models/editing/tokens.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from vlmend.core.state_edits import ModuleEdit, Touch
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights
from vlmend.errors import BadParameter

__all__ = ["AcceptAbove", "DualEdit", "InsertTokens", "MapImages", "MapTexts", "Rerank", "ScaleLogits", "TurnFrom"]


@dataclass(frozen=True, eq=False)
class MapTexts:
    """t <- t + strength * (P t - t), then back to length 1, for every text embedding of a dual encoder.

    Shape: matrix (P) "width width", float32.
    """

    matrix: Float[Tensor, "width width"]
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"states"})

    def scaled(self, factor: float) -> MapTexts:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class MapImages:
    """i <- i + strength * (P i - i), then back to length 1, for every image embedding of a dual encoder.

    Shape: matrix (P) "width width", float32.
    """

    matrix: Float[Tensor, "width width"]
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"image_features"})

    def scaled(self, factor: float) -> MapImages:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class TurnFrom:
    """e <- e + strength * (z - e), then back to length 1, for every embedding of one tower; z is e turned away.

    With p the part of e along a subspace and q the rest, z = r p + sqrt(1 - r^2 |p|^2) q / |q|, of length 1, where r
    is the share of p at which what is left of it and what is lost of e weigh alike, each as a share of its largest:

        r = (1 - <z, e>) / (1 - |q|) = (2 + |q| - |q| sqrt(3 + 2 |q|)) / (4 - 2 |q|^2)

    An embedding that lies in the subspace, or across all of it, stays.

    Attributes:
        basis: Directions of length 1, each across the others.
        tower: Whose embeddings.

    Shape: basis "direction width", float32.
    """

    basis: Float[Tensor, "direction width"]
    tower: Literal["vision", "text"]
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"image_features" if self.tower == "vision" else "states"})

    def scaled(self, factor: float) -> TurnFrom:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class InsertTokens:
    """Learnt tokens in the sequence of one tower: behind the first token of a text, behind the last patch of a picture.

    The first blocks read tokens of their own there, whatever the block before made of these places; later blocks read
    on what came. Any strength other than 0 is on.

    Attributes:
        instead: Words in whose place they stand: a text that begins with these goes on without them.
        sets: Of the text tower: how many sets the tokens are, one behind another. A text is read with each set by
            itself, and what comes out, each brought to length 1, is averaged.

    Shape: tokens "block token width", float32, for as many blocks as have tokens of their own.
    """

    tower: Literal["vision", "text"]
    tokens: Float[Tensor, "block token width"]
    instead: str = ""
    strength: float = 1.0
    sets: int = 1
    when: ClassVar[Literal["always"]] = "always"

    def __post_init__(self) -> None:
        count = self.tokens.shape[1]
        if self.sets < 1 or count % self.sets or (self.tower == "vision" and self.sets > 1):
            raise BadParameter(
                f"{count} tokens of the {self.tower} tower are no {self.sets} sets.",
                "Sets are of texts, and all of one length.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"image_features" if self.tower == "vision" else "states"})

    def scaled(self, factor: float) -> InsertTokens:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class ScaleLogits:
    """logits <- logits * (1 + strength * (1 / temperature - 1)) of a dual encoder."""

    temperature: float
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise BadParameter(f"{self.temperature} is no temperature.", "Use one above 0.")

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"logits"})

    def scaled(self, factor: float) -> ScaleLogits:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class AcceptAbove:
    """Accept an image whose maximum concept matching (`core.metrics.detection.mcm`) over `texts` reaches the threshold.

    The score depends on how many texts there are and which, so the threshold holds for these only. Any strength
    other than 0 is on.
    """

    texts: tuple[str, ...]
    threshold: float
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"reply"})

    def scaled(self, factor: float) -> AcceptAbove:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class Rerank:
    """Reorder what a text retrieves, so that its first places are shared evenly among groups of images.

    Each image goes to the group whose prompt it is most like, by the encoder itself. Places are dealt in rounds: the
    best image that is left of each group, in an order within the round that is drawn from the query's words. Once a
    group has run out, the others go on in rounds of their own. A query that holds one of `named` as a word keeps its
    order. Any strength other than 0 is on.

    Attributes:
        groups: Names of two or more groups.
        prompts: One text for each, which tells its images.
        named: Words by which a query asks for a group.
    """

    groups: tuple[str, ...]
    prompts: tuple[str, ...]
    named: tuple[str, ...] = ()
    strength: float = 1.0
    when: ClassVar[Literal["always"]] = "always"

    def __post_init__(self) -> None:
        if len(self.groups) < 2 or len(self.prompts) != len(self.groups):
            raise BadParameter(
                f"{len(self.prompts)} prompts cannot tell {len(self.groups)} groups.",
                "Give two groups or more, and one prompt for each.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"reply"})

    def scaled(self, factor: float) -> Rerank:
        return replace(self, strength=self.strength * factor)


DualEdit = (
    MapTexts | MapImages | TurnFrom | ModuleEdit | InsertTokens | ScaleLogits | AcceptAbove | Rerank | LoadAdapter
    | ReplaceWeights
)  # fmt: skip
"""The edits of dual encoders."""
