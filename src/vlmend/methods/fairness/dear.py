"""DeAR: a residual on image embeddings, learnt so that classifiers of an attribute are left unsure.

Seth, Hemani, Agarwal, CVPR 2023 (arXiv 2303.10431). With v the embeddings of pictures, A a matrix that begins at zero,
u = v + A v brought to length 1 and h a classifier of the attribute with K classes, a step lowers

    mean |u - v|^2 + hide * (1 - mean entropy of h(u) / ln K)

and h is learnt anew on u each round. Texts stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadParameter
from vlmend.methods.grouped import group_counts
from vlmend.pictures.galleries import people_gallery
from vlmend.training.loop import LoopSettings, train_at_once

__all__ = ["METHOD", "Dear", "residual"]

CLASSIFIER = LoopSettings(steps=100, rate=0.1)
"""How h is learnt, on all embeddings at once."""


@dataclass(frozen=True)
class Dear(AbstractMethod[DualTarget]):
    """An additive residual on image embeddings.

    Attributes:
        hide: Weight of the classifier's certainty beside the squared change of an embedding; 0 leaves all as it is.
        rounds: Classifiers, each learnt on what the residual gives so far.
        steps: Steps of the residual against each.
        rate: Its peak learning rate.
    """

    name: ClassVar[str] = "dear"
    source: ClassVar[str] = "Seth et al., arXiv 2303.10431, CVPR 2023"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product a picture"
    data: ClassVar[str] = "pictures with their group"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {"rounds": 1, "steps": 20, "rate": 0.05}

    hide: float = 1.0
    rounds: int = 10
    steps: int = 50
    rate: float = 0.01

    def __post_init__(self) -> None:
        if self.hide < 0 or min(self.rounds, self.steps) < 1 or self.rate <= 0:
            raise BadParameter(
                f"hide={self.hide:g}, rounds={self.rounds}, steps={self.steps}, rate={self.rate:g} cannot be.",
                "hide is 0 or more, rate above 0, the others are at least 1.",
            )

    def builtin(self) -> Dataset:
        """Men and women of 20 professions, in views for training."""
        return people_gallery("train")

    def sample_data(self) -> Dataset:
        """Twelve of them."""
        return Dataset("few people", self.builtin().examples[:48:4])

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Learn the residual on the pictures whose group is known.

        Raises:
            BadData: There are fewer than two groups, or a group of a single picture.
        """
        rows = [(row.image, row.group) for row in data.examples if row.image is not None and row.group]
        names = sorted(group_counts(data.name, [group for _, group in rows]))
        embedded = target.embed_images([image for image, _ in rows])
        labels = torch.tensor([names.index(group) for _, group in rows])
        matrix = torch.eye(embedded.shape[1]) + residual(self, embedded, labels)
        return self.made(target, data, seed, [MapImages(matrix)], {})


def residual(method: Dear, embedded: Float[Tensor, "row width"], labels: Int[Tensor, " row"]) -> Tensor:
    """The matrix A, "width width"."""
    learnt = nn.Parameter(torch.zeros(embedded.shape[1], embedded.shape[1]))
    if not method.hide:
        return learnt.detach()
    for _ in range(method.rounds):
        weight, bias = _classifier(normalize(embedded + embedded @ learnt.detach().T, dim=1), labels)

        def loss_of_step(step: int, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            del step
            moved = normalize(embedded + embedded @ learnt.T, dim=1)
            certainty = 1 - _entropy(moved @ weight.T + bias).mean() / math.log(len(bias))
            return (moved - embedded).square().sum(1).mean() + method.hide * certainty

        train_at_once([learnt], loss_of_step, LoopSettings(method.steps, method.rate))
    return learnt.detach()


def _classifier(embedded: Float[Tensor, "row width"], labels: Int[Tensor, " row"]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear classifier that is learnt from zero."""
    classes = int(labels.max()) + 1
    weight, bias = nn.Parameter(torch.zeros(classes, embedded.shape[1])), nn.Parameter(torch.zeros(classes))
    train_at_once([weight, bias], lambda step: cross_entropy(embedded @ weight.T + bias, labels), CLASSIFIER)
    return weight.detach(), bias.detach()


def _entropy(logits: Float[Tensor, "row class"]) -> Float[Tensor, " row"]:
    shares = logits.log_softmax(1)
    return -(shares.exp() * shares).sum(1)


METHOD = Dear
