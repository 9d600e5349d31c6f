"""FLYP: fine-tune both towers as they were trained at first, with pictures and the texts of their names.

Goyal et al., arXiv 2212.00638 (CVPR 2023): symmetric InfoNCE between the pictures of a batch and "a photo of a
NAME". It is the plain form of its kin in `vlmend.methods.contrastive`, and what each of them is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.methods.contrastive import AbstractContrastive, Pairs
from vlmend.pictures.named import named_pictures

__all__ = ["METHOD", "Flyp"]


@dataclass(frozen=True)
class Flyp(AbstractContrastive):
    """Contrastive fine-tuning, and nothing else."""

    name: ClassVar[str] = "flyp"
    source: ClassVar[str] = "Goyal et al., arXiv 2212.00638, CVPR 2023"

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            MissingExtra: peft is not installed, which adapters need.
        """
        twin = self.tuned(target, self.twin(target, seed), named_pictures(data), Pairs.contrast, seed)
        return self.made(target, data, seed, twin.edits, {})


METHOD = Flyp
