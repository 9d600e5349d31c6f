"""What methods that fine-tune both towers on pictures and their names share: the pairs of a step, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset
from vlmend.core.targets import DualWeights, Pixels
from vlmend.methods.tuning import AbstractTuning
from vlmend.pictures.galleries import some_objects, training_objects
from vlmend.pictures.named import NamedPictures
from vlmend.training.loop import StepHook
from vlmend.training.losses import contrastive_loss
from vlmend.training.twin import Part, Twin

__all__ = ["AbstractContrastive", "Pairs", "embedded", "embedded_texts", "same"]

Embedded = Float[Tensor, "pair width"]


@dataclass(frozen=True)
class Pairs:
    """The pictures of a step and the texts of their names, embedded by the model that learns.

    Attributes:
        step: Its number.
        pixels: The pictures.
        places: Of the pictures among all.
        words: The text of each.
        images, texts: Embeddings of length 1.
        scale: Factor of cosines, the model's own.
        true: Which texts are true of which pictures, "picture text".
    """

    step: int
    pixels: Pixels
    places: Sequence[int]
    words: Sequence[str]
    images: Embedded
    texts: Embedded
    scale: float
    true: Bool[Tensor, "pair pair"]

    @property
    def logits(self) -> Float[Tensor, "picture text"]:
        """Of every picture with every text."""
        return self.scale * self.images @ self.texts.T

    def contrast(self, back: float = 0.5) -> Tensor:
        """InfoNCE, symmetric unless `back` says otherwise; a text that is true of another picture is no negative."""
        return contrastive_loss(self.images, self.texts, self.scale, self.true, back)


@dataclass(frozen=True)
class AbstractContrastive(AbstractTuning):
    """Contrastive fine-tuning of both towers. Subclasses write `learn`, with `tuned` and their loss of a step's pairs.

    For the same seed all see the batches of `carot`, the first of them, so that each can be held to its plain form.
    """

    data: ClassVar[str] = "pictures with their names; training"
    passes: ClassVar[str] = "none; the weights of both towers are replaced"
    part: ClassVar[Part] = "all"
    draws: ClassVar[str] = "carot"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 4, "rate": 1e-3}

    steps: int = 40
    rate: float = 1e-4
    batch: int = 32

    def builtin(self) -> Dataset:
        """A training view of each known object on a ground of light and shade."""
        return training_objects(1, "ground")

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def tuned(
        self, target: DualWeights, twin: Twin, known: NamedPictures, loss: Callable[[Pairs], Tensor], seed: int,
        hooks: Sequence[StepHook] = (),
    ) -> Twin:  # fmt: skip
        """The twin, trained on the pictures and the texts of their names."""
        learner, scale = target.on(twin.model), float(target.towers.scale)
        texts = known.texts

        def loss_of(step: int, pixels: Pixels, places: Sequence[int]) -> Tensor:
            words = [texts[known.right[place]] for place in places]
            seen, told = embedded(learner, pixels, words)
            return loss(Pairs(step, pixels, places, words, seen, told, scale, same(words)))

        return self.trained(target, twin, known.images, loss_of, seed, hooks)


def embedded(encoder: DualWeights, pixels: Pixels, words: Sequence[str]) -> tuple[Embedded, Embedded]:
    """Unit-length embeddings of pictures and of their texts."""
    return encoder.embed_pixels(pixels), embedded_texts(encoder, words)


def embedded_texts(encoder: DualWeights, words: Sequence[str]) -> Embedded:
    """Unit-length embeddings of texts, differentiable in the weights."""
    return normalize(encoder.text_features(words), dim=1)


def same(words: Sequence[str]) -> Bool[Tensor, "pair pair"]:
    """Which of the texts are alike to the letter."""
    places = torch.tensor([words.index(word) for word in words])
    return places[:, None] == places
