"""TeCoA: a vision tower that names pictures right, also where each pixel was moved a little to make it fail.

Mao et al., arXiv 2212.07016 (ICLR 2023). With f the tower that learns, t the embedded names, s the model's own scale
and y the right name, the loss of a picture x is

    L = max over |d| <= epsilon of  -log softmax(s cos(f(x + d), t))_y

averaged over the batch. The text tower stays. Unlike FARE it reads names, and binds the tower to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights, Pixels
from vlmend.methods.tuning import AbstractHardening, PixelLoss, naming_loss
from vlmend.pictures.galleries import some_objects, training_objects
from vlmend.pictures.named import named_pictures

__all__ = ["LEFT_OUT", "METHOD", "Tecoa"]

LEFT_OUT = "food"
"""A category of things that the built-in pictures do not show: is the tower robust on those as well?"""


@dataclass(frozen=True)
class Tecoa(AbstractHardening):
    """Adversarial fine-tuning of the vision tower on the names of pictures.

    Attributes:
        views: Training views of each known object in the built-in pictures; more of them make a tower more robust.
    """

    name: ClassVar[str] = "tecoa"
    source: ClassVar[str] = "Mao et al., arXiv 2212.07016, ICLR 2023"
    data: ClassVar[str] = "pictures with their names; adversarial training"

    steps: int = 120
    rate: float = 7e-4
    batch: int = 32
    epsilon: float = 6 / 255
    views: int = 8

    def builtin(self) -> Dataset:
        """Training views of each known object, but for food."""
        return training_objects(self.views, without=(LEFT_OUT,))

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the tower on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            MissingExtra: peft is not installed, which adapters need.
        """
        known = named_pictures(data)
        twin = self.twin(target, seed)
        learner, texts = target.on(twin.model), target.bare.embed_texts(known.texts)
        right = torch.tensor(known.right)

        def loss_of(pixels: Pixels, places: Sequence[int]) -> PixelLoss:
            return naming_loss(learner, pixels, texts, right[list(places)])

        return self.made(target, data, seed, self.hardened(target, twin, known.images, loss_of, seed).edits, {})


METHOD = Tecoa
