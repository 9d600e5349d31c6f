"""FARE: a vision tower that embeds pictures as before, also where each pixel was moved a little to fool it.

Schlarmann et al., arXiv 2402.12336 (ICML 2024). With f0 the tower as it was, f the one that learns and embeddings
before they are brought to length 1, the loss of a picture x is

    L = max over |d| <= epsilon of  sum over the width of (f(x + d) - f0(x))^2

averaged over the batch. It needs neither labels nor texts, and the embeddings keep their meaning: text tower, prompts
and whatever else reads the embeddings stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights, Pixels
from vlmend.errors import BadData
from vlmend.methods.tuning import AbstractHardening, PixelLoss
from vlmend.pictures.galleries import training_objects, training_pictures

__all__ = ["METHOD", "Fare", "distance"]


@dataclass(frozen=True)
class Fare(AbstractHardening):
    """Unsupervised adversarial fine-tuning of the vision tower.

    Attributes:
        views: Training views of each known object in the built-in pictures, beside the others; more of them make a
            tower more robust.
    """

    name: ClassVar[str] = "fare"
    source: ClassVar[str] = "Schlarmann et al., arXiv 2402.12336, ICML 2024"
    data: ClassVar[str] = "pictures without labels; adversarial training"

    steps: int = 150
    rate: float = 7e-4
    batch: int = 32
    views: int = 8

    def builtin(self) -> Dataset:
        """Training views of objects, people, words and scenes, and as many views as asked for of each known object."""
        mixed = training_pictures()
        more = training_objects(self.views).examples if self.views else ()
        return replace(mixed, name=f"{mixed.name}-{self.views}", examples=(*mixed.examples, *more))

    def sample_data(self) -> Dataset:
        """Seven of them."""
        return training_pictures(160)

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the tower on the pictures.

        Raises:
            BadData: The data holds no picture.
            MissingExtra: peft is not installed, which adapters need.
        """
        images = [image for example in data.examples for image in example.images]
        if not images:
            raise BadData(f"{data.name} holds no picture.", "Pass rows with image; labels and texts are not read.")
        twin = self.twin(target, seed)
        before, learner = target.on(target.towers.model), target.on(twin.model)

        def loss_of(pixels: Pixels, places: Sequence[int]) -> PixelLoss:
            del places
            with torch.no_grad():
                wanted = before.image_features(pixels)
            return distance(learner, pixels, wanted)

        return self.made(target, data, seed, self.hardened(target, twin, images, loss_of, seed).edits, {})


def distance(learner: DualWeights, pixels: Pixels, wanted: Float[Tensor, "image width"]) -> PixelLoss:
    """The loss as a function of pixel values: squared distance of the embeddings, summed over the width."""

    def loss(values: Float[Tensor, "*pixels"]) -> Tensor:
        moved = learner.image_features(replace(pixels, values=values))
        return (moved - wanted).square().sum(1).mean()

    return loss


METHOD = Fare
