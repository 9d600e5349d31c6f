"""FARE: a vision tower that embeds pictures as before, also where each pixel was moved a little to fool it.

Schlarmann et al., arXiv 2402.12336 (ICML 2024). With f0 the tower as it was, f the one that learns and embeddings
before they are brought to length 1, the loss of a picture x is

    L = max over |d| <= epsilon of  sum over the width of (f(x + d) - f0(x))^2

averaged over the batch. It needs neither labels nor texts, and the embeddings keep their meaning: text tower, prompts
and whatever else reads the embeddings stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualWeights, Kind, Pixels
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.pool import Part, drawn
from vlmend.training.adversary import Adversary, worst_pixels
from vlmend.training.batches import chosen
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.twin import How, Twin, twin_of

__all__ = ["METHOD", "Fare", "distance", "tuned"]

PICTURES: dict[Part, int] = {"object": 640, "person": 160, "word": 160, "scene": 160}
"""Training pictures of each kind."""


@dataclass(frozen=True)
class Fare(AbstractMethod[DualWeights]):
    """Unsupervised adversarial fine-tuning of the vision tower.

    Attributes:
        epsilon: Largest change of a pixel, as a share of black to white.
        steps: Optimiser steps.
        inner: Steps of the inner adversary, each of 2.5 epsilon over their number.
        rate: Peak learning rate.
        batch: Pictures a step.
        train: `weights`: the tower's own. `adapters`: low-rank products beside its linear modules.
        rank: Of the adapters.
    """

    name: ClassVar[str] = "fare"
    source: ClassVar[str] = "Schlarmann et al., arXiv 2402.12336, ICML 2024"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; the tower's weights are replaced, or two small products a linear module"
    data: ClassVar[str] = "pictures without labels; adversarial training"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "inner": 1, "batch": 2, "rate": 1e-2, "train": "adapters"}

    epsilon: float = 4 / 255
    steps: int = 150
    inner: int = 2
    rate: float = 7e-4
    batch: int = 32
    train: How = "weights"
    rank: int = 8

    def __post_init__(self) -> None:
        if min(self.steps, self.inner, self.batch, self.rank) < 1 or self.rate <= 0 or not 0 < self.epsilon <= 1:
            raise BadParameter(
                f"epsilon={self.epsilon:g}, steps={self.steps}, inner={self.inner}, rate={self.rate:g}, "
                f"batch={self.batch}, rank={self.rank} cannot be.",
                "epsilon lies above 0 and at most at 1 (4/255 is 0.0157), rate above 0, the others are at least 1.",
            )

    def builtin(self) -> Dataset:
        """Training views of objects, people, words and scenes."""
        return _pictures(1)

    def sample_data(self) -> Dataset:
        """Seven of them."""
        return _pictures(160)

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the tower on the pictures.

        Raises:
            BadData: The data holds no picture.
            MissingExtra: peft is not installed, which adapters need.
        """
        images = [image for example in data.examples for image in example.images]
        if not images:
            raise BadData(f"{data.name} holds no picture.", "Pass rows with image; labels and texts are not read.")
        return self.made(target, data, seed, tuned(self, target, images, seed).edits, {})


def tuned(method: Fare, target: DualWeights, images: list[Image], seed: int) -> Twin:
    """A twin whose vision tower is trained on the images; batch and start of a step follow from seed and step."""
    twin = twin_of(target, "vision", method.train, rank=method.rank, seed=seed)
    before, learner = target.on(target.towers.model), target.on(twin.model)
    adversary = Adversary(method.epsilon, method.inner, 2.5 * method.epsilon / method.inner)

    def loss_of_step(step: int) -> Tensor:
        pixels = target.pixels(chosen(images, method.batch, f"fare:{seed}:{step}"))
        with torch.no_grad():
            wanted = before.image_features(pixels)
        loss = distance(learner, pixels, wanted)
        return loss(worst_pixels(loss, pixels.values, adversary, seed * method.steps + step))

    train_at_once(twin.parameters, loss_of_step, LoopSettings(method.steps, method.rate, decay=1e-4))
    return twin


def distance(
    learner: DualWeights, pixels: Pixels, wanted: Float[Tensor, "image width"]
) -> Callable[[Float[Tensor, "*pixels"]], Tensor]:
    """The loss as a function of pixel values: squared distance of the embeddings, summed over the width."""

    def loss(values: Float[Tensor, "*pixels"]) -> Tensor:
        moved = learner.image_features(replace(pixels, values=values))
        return (moved - wanted).square().sum(1).mean()

    return loss


@cache
def _pictures(share: int) -> Dataset:
    """One in `share` of the built-in pictures."""
    rows = [
        Example(f"{part}-{k}", group=part, image=Image.from_pixels(drawn(part, "train", 0, k).image, f"{part} {k}"))
        for part, count in PICTURES.items()
        for k in range(count // share)
    ]
    return Dataset("training-pictures", tuple(rows), "Apache-2.0 (Noto Emoji)")


METHOD = Fare
