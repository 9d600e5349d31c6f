"""Bidirectional constraints: fine-tune both towers so that the ways from picture to text and back say the same.

For a batch with unit-length embeddings i of pictures and t of their texts, s the model's scale, S = i t' and S0 the
same of the model as it was, ' for transposed:

    L = (1 - back) CE(s S) + back CE(s S') + cross C(S, S') + within C(i i', t t')
        + keep [CE(softmax s S0, s S) + CE(softmax s S0', s S')] / 2
    C(A, B) = mean over rows of the sum over columns of (A - B)^2

The first two terms are InfoNCE both ways, the next two the cycle consistency of CyCLIP (Goel et al., NeurIPS 2022,
arXiv 2205.14459), the last holds both ways to what the model said before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter
from vlmend.methods.contrastive import AbstractContrastive, Pairs, embedded
from vlmend.pictures.named import named_pictures
from vlmend.training.losses import distillation

__all__ = ["METHOD", "Bidirectional", "apart"]


@dataclass(frozen=True)
class Bidirectional(AbstractContrastive):
    """Contrastive fine-tuning that holds pictures among texts and texts among pictures to each other.

    Attributes:
        back: Share of InfoNCE in which texts find pictures; at 0 only pictures find texts.
        cross: Weight of the cosines of picture j with text k against those of picture k with text j.
        within: Weight of the cosines of two pictures against those of their texts.
        keep: Weight of what the model said before, in both directions.
    """

    name: ClassVar[str] = "bidirectional"
    source: ClassVar[str] = "Goel et al., arXiv 2205.14459, NeurIPS 2022, and ours"

    back: float = 0.5
    cross: float = 0.25
    within: float = 0.25
    keep: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.cross, self.within, self.keep) < 0 or not 0 <= self.back <= 1:
            raise BadParameter(
                f"back={self.back:g}, cross={self.cross:g}, within={self.within:g}, keep={self.keep:g} cannot be.",
                "back is a share from 0 to 1, the others are weights of 0 or more.",
            )

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            MissingExtra: peft is not installed, which adapters need.
        """
        before = target.on(target.towers.model)

        def loss(pairs: Pairs) -> Tensor:
            images, texts = pairs.images, pairs.texts
            total = pairs.contrast(self.back)
            if self.cross:
                total = total + self.cross * apart(images @ texts.T, texts @ images.T)
            if self.within:
                total = total + self.within * apart(images @ images.T, texts @ texts.T)
            if self.keep:
                with torch.no_grad():
                    seen, told = embedded(before, pairs.pixels, pairs.words)
                total = total + self.keep * distillation(pairs.logits, pairs.scale * seen @ told.T)
            return total

        twin = self.tuned(target, self.twin(target, seed), named_pictures(data), loss, seed)
        return self.made(target, data, seed, twin.edits, {})


def apart(one: Float[Tensor, "row column"], other: Float[Tensor, "row column"]) -> Tensor:
    """Squared distance of two tables of cosines: the sum over columns, the mean over rows."""
    return (one - other).square().sum(1).mean()


METHOD = Bidirectional
