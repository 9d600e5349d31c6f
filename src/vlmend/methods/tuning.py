"""What methods that train a dual encoder on pictures share: the parameters, the loop, and the adversary in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.images import Image
from vlmend.core.metrics.calibration import nll
from vlmend.core.targets import Access, DualGradients, DualWeights, Kind, Pixels
from vlmend.errors import BadParameter
from vlmend.training.adversary import Adversary, worst_pixels
from vlmend.training.batches import chosen
from vlmend.training.loop import LoopSettings, StepHook, train_at_once
from vlmend.training.twin import How, Part, Twin, twin_of

__all__ = ["AbstractHardening", "AbstractTuning", "BatchLoss", "PixelLoss", "naming_loss"]

BatchLoss = Callable[[int, Pixels, Sequence[int]], Tensor]
"""The loss of a step, from its number, its pictures and their places among all."""

PixelLoss = Callable[[Float[Tensor, "*pixels"]], Tensor]
"""A loss as a function of pixel values."""


@dataclass(frozen=True)
class AbstractTuning(AbstractMethod[DualWeights]):
    """Fine-tuning of a part of a dual encoder. Subclasses write `learn`, with `trained`.

    `only` is a regular expression for what learns of the part, empty for all of it. Methods with the same `draws` see
    the same batches; without one a method draws its own.

    Attributes:
        steps: Optimiser steps.
        rate: Peak learning rate.
        batch: Pictures a step.
        train: `weights`: the part's own. `adapters`: low-rank products beside its linear modules.
        rank: Of the adapters.
    """

    needs: ClassVar[Access] = "weights"
    works_on: ClassVar[Kind | tuple[Kind, ...]] = "dual"
    passes: ClassVar[str] = "none; the tower's weights are replaced, or two small products a linear module"
    part: ClassVar[Part] = "vision"
    only: ClassVar[str] = ""
    draws: ClassVar[str] = ""
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rate": 1e-2, "train": "adapters"}

    steps: int = 80
    rate: float = 5e-4
    batch: int = 64
    train: How = "weights"
    rank: int = 8

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.rate <= 0:
            raise BadParameter(
                f"steps={self.steps}, rate={self.rate:g}, batch={self.batch}, rank={self.rank} cannot be.",
                "rate is above 0, the others are at least 1.",
            )

    def twin(self, target: DualWeights, seed: int) -> Twin:
        """A twin of the target, the part to learn."""
        return twin_of(target, self.part, self.train, rank=self.rank, only=self.only, seed=seed)

    def trained(
        self, target: DualWeights, twin: Twin, images: Sequence[Image], loss: BatchLoss, seed: int,
        hooks: Sequence[StepHook] = (),
    ) -> Twin:  # fmt: skip
        """The twin, trained on the images in place; the batch of a step follows from seed and step."""

        def loss_of_step(step: int) -> Tensor:
            places = chosen(range(len(images)), self.batch, f"{self.draws or self.name}:{seed}:{step}")
            return loss(step, target.pixels([images[place] for place in places]), places)

        train_at_once(twin.parameters, loss_of_step, LoopSettings(self.steps, self.rate, decay=1e-4), hooks)
        return twin


@dataclass(frozen=True)
class AbstractHardening(AbstractTuning):
    """Fine-tuning of the vision tower where an adversary moved each pixel. Subclasses write `learn`, with `hardened`.

    Attributes:
        epsilon: Largest change of a pixel, as a share of black to white.
        inner: Steps of the inner adversary, each of 2.5 epsilon over their number.
    """

    quick: ClassVar[Mapping[str, Any]] = {**AbstractTuning.quick, "inner": 1}

    epsilon: float = 4 / 255
    inner: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner < 1 or not 0 < self.epsilon <= 1:
            raise BadParameter(
                f"epsilon={self.epsilon:g}, inner={self.inner} cannot be.",
                "epsilon lies above 0 and at most at 1 (4/255 is 0.0157), inner is at least 1.",
            )

    def hardened(
        self, target: DualWeights, twin: Twin, images: Sequence[Image],
        loss_of: Callable[[Pixels, Sequence[int]], PixelLoss], seed: int,
    ) -> Twin:  # fmt: skip
        """The twin, trained on the pixels near its images at which the loss is large.

        Args:
            loss_of: From the pictures of a step and their places among all to the loss as a function of their pixels.
        """
        adversary = Adversary(self.epsilon, self.inner, 2.5 * self.epsilon / self.inner)

        def loss(step: int, pixels: Pixels, places: Sequence[int]) -> Tensor:
            of_pixels = loss_of(pixels, places)
            return of_pixels(worst_pixels(of_pixels, pixels.values, adversary, seed * self.steps + step))

        return self.trained(target, twin, images, loss, seed)


def naming_loss(
    learner: DualGradients, pixels: Pixels, texts: Float[Tensor, "text width"], right: Int[Tensor, " image"]
) -> PixelLoss:
    """The loss as a function of pixel values: mean negative log-likelihood of the right text of each picture."""

    def loss(values: Float[Tensor, "*pixels"]) -> Tensor:
        embedded = learner.embed_pixels(replace(pixels, values=values))
        return nll(learner.scored(embedded, texts), right, learner.pair_kind).mean()

    return loss
