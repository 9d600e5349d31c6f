"""AlignCLIP: fine-tune both towers so that pictures spread out among pictures as texts do, and the two clouds meet.

Eslami & de Melo, arXiv 2406.17639 (ICLR 2025). For a batch with unit-length embeddings i of pictures and t of their
texts, s the model's scale and m the cosines of the texts before any tuning, the in-modality separation is

    A(z) = s (z z' * (1 - m)), but s i_j . t_j on the diagonal
    L = InfoNCE(s i t') + separate [CE(A(i)) + CE(A(t))]

with the diagonal as the right one of each row. Pictures whose texts mean the same (m = 1) are not pushed apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter
from vlmend.methods.contrastive import AbstractContrastive, Pairs
from vlmend.pictures.named import named_pictures

__all__ = ["METHOD", "AlignClip", "separation"]


@dataclass(frozen=True)
class AlignClip(AbstractContrastive):
    """Contrastive fine-tuning with in-modality separation.

    Attributes:
        separate: Weight of the separation within pictures and within texts; 0 leaves it out.
    """

    name: ClassVar[str] = "align_clip"
    source: ClassVar[str] = "Eslami & de Melo, arXiv 2406.17639, ICLR 2025"

    separate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separate < 0:
            raise BadParameter(f"separate={self.separate:g} cannot be.", "It is the weight of a term, 0 or more.")

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            MissingExtra: peft is not installed, which adapters need.
        """
        before = target.bare

        def loss(pairs: Pairs) -> Tensor:
            total = pairs.contrast()
            if self.separate:
                meant = before.embed_texts(pairs.words)
                own = (pairs.images * pairs.texts).sum(1)
                alike = meant @ meant.T
                both = (separation(one, own, alike, pairs.scale) for one in (pairs.images, pairs.texts))
                total = total + self.separate * sum(both, torch.zeros(()))
            return total

        twin = self.tuned(target, self.twin(target, seed), named_pictures(data), loss, seed)
        return self.made(target, data, seed, twin.edits, {})


def separation(
    embedded: Float[Tensor, "pair width"], own: Float[Tensor, " pair"], alike: Float[Tensor, "pair pair"], scale: float
) -> Tensor:
    """Cross-entropy by which each of one modality tells its own pair from the others of the same modality.

    Args:
        embedded: Pictures, or texts, of length 1.
        own: Cosine of each picture and its text.
        alike: How much alike the texts are; by 1 less this much two are pushed apart.
        scale: Factor of the cosines.
    """
    cosines = (embedded @ embedded.T * (1 - alike)).diagonal_scatter(own)
    return cross_entropy(scale * cosines, torch.arange(len(own)))


METHOD = AlignClip
