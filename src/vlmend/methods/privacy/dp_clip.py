"""DP-CLIP: contrastive fine-tuning of which no single pair can be told, by clipping and noise, with a ledger.

Huang et al., arXiv 2306.08173. The loss of a pair hangs on every other pair of its batch, so there is no gradient of a
pair to clip; the batch's is clipped instead, with sensitivity 2C (`training.private`). Noise grows with the number of
parameters, so few are trained: with unit-length embeddings i of pictures, frozen and computed once,

    i <- (I + U V^T) i, then back to length 1

with U and V of `rank` columns, V zero at first. Texts stay. The loss is symmetric InfoNCE at the model's own scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualGradients, Kind
from vlmend.errors import BadData, BadParameter
from vlmend.methods.promises import cautions_of, check_promise, entropy_of, with_notes
from vlmend.pictures.galleries import PHOTO, training_objects
from vlmend.training.losses import contrastive_loss
from vlmend.training.private import Ledger, drawn_groups, ledger_for, private_gradient

__all__ = ["METHOD", "DpClip", "Embedded", "embedded"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Pairs as the model sees them, computed once.

    Attributes:
        images, texts: Of length 1, "pair width".
        alike: Pairs with the same number have the same text, so they are no negatives of each other.
        scale: Factor of cosines.
    """

    images: Float[Tensor, "pair width"]
    texts: Float[Tensor, "pair width"]
    alike: Tensor
    scale: float

    def loss(self, rows: Sequence[int], mapped: Float[Tensor, "row width"]) -> Tensor:
        """Symmetric InfoNCE of these pairs, their pictures mapped."""
        same = self.alike[list(rows)]
        return contrastive_loss(mapped, self.texts[list(rows)], self.scale, same[:, None] == same)


@dataclass(frozen=True)
class DpClip(AbstractMethod[DualGradients]):
    """A map of picture embeddings, trained under differential privacy.

    Attributes:
        epsilon, delta: The promise for each pair; delta should lie below one in the number of pairs.
        steps, rate: Of Adam.
        batch: Pairs in a step, on average.
        groups: Each step's pairs are dealt out into so many; each group's gradient is clipped by itself, so the noise
            is so many times smaller, and negatives are those of the group alone. 1 is the paper's.
        clip: C, the longest gradient of a group.
        rank: Of the map.
        key: File with the secret that the noise is drawn from, at least 16 bytes; from the seed unless given.
    """

    name: ClassVar[str] = "dp_clip"
    source: ClassVar[str] = "Huang et al., arXiv 2306.08173"
    needs: ClassVar[Access] = "gradients"
    passes: ClassVar[str] = "none; one small product a picture"
    data: ClassVar[str] = "pairs of pictures and captions or names; private training"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[dict[str, Any]] = {"steps": 3, "batch": 4, "groups": 1, "epsilon": 50.0}

    epsilon: float = 8.0
    delta: float = 1e-5
    steps: int = 1000
    rate: float = 3e-3
    batch: int = 512
    groups: int = 16
    clip: float = 1.0
    rank: int = 4
    key: str = ""

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.groups, self.rank)
        if min(counts) < 1 or self.rate <= 0 or not 0 < self.clip < math.inf:
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, groups={self.groups}, rank={self.rank}, rate={self.rate:g}, "
                f"clip={self.clip:g} cannot be.",
                "rate and clip are above 0, clip is finite, the others are at least 1.",
            )
        check_promise(self.epsilon, self.delta, "flyp")

    def builtin(self) -> Dataset:
        """Eight training views of each known object with its kind: animal, food, tool, ..."""
        named = training_objects(8)
        rows = tuple(replace(row, answers=(row.group,)) for row in named.examples)
        return replace(named, name=f"{named.name}-by-kind", examples=rows)

    def sample_data(self) -> Dataset:
        """Sixteen of them."""
        few = self.builtin()
        return replace(few, examples=few.examples[:: len(few.examples) // 16])

    def learn(self, target: DualGradients, data: Dataset, *, seed: int) -> Mend:
        """Train the map on rows that have an image and a caption, or else an answer.

        Raises:
            BadData: There are fewer than two such rows.
            BadParameter: A promise that cannot be kept.
            UsageError: The key cannot be read, or others may read it.
            MissingExtra: opacus is not installed.
        """
        pairs = embedded(target, data)
        count = len(pairs.images)
        ledger = ledger_for(self.epsilon, self.delta, min(1.0, self.batch / count), self.steps)
        draws = Generator().manual_seed(entropy_of(self.key, seed))
        matrix = self.trained(pairs, ledger.noise, self.clip, ledger.sampling, seed, draws)
        made = self.made(target, data, seed, [MapImages(matrix)], _dose(ledger, self.clip, self.groups))
        return with_notes(made, cautions_of(self.key, self.delta, count))

    def trained(
        self, pairs: Embedded, noise: float, clip: float, sampling: float, seed: int, draws: Generator
    ) -> Float[Tensor, "width width"]:
        """The map; with noise 0 and clip infinite that of ordinary training on the same batches.

        Args:
            sampling: Chance of a pair to be in a step.
            draws: Of batches and noise.
        """
        width = pairs.images.shape[1]
        first = torch.randn(width, self.rank, generator=Generator().manual_seed(seed)) / width**0.5
        both = torch.cat([first, torch.zeros(width, self.rank)]).requires_grad_()
        optimiser = torch.optim.Adam([both], lr=self.rate)

        def gradient(rows: Sequence[int]) -> Float[Tensor, " parameter"]:
            if len(rows) < 2:  # one pair alone has no negatives
                return torch.zeros(both.numel())
            left, right = both[:width], both[width:]
            images = pairs.images[list(rows)]
            (found,) = torch.autograd.grad(pairs.loss(rows, normalize(images + images @ right @ left.T, dim=1)), both)
            return found.flatten()

        for _ in range(self.steps):
            groups = drawn_groups(len(pairs.images), sampling, self.groups, draws)
            both.grad = private_gradient(groups, gradient, clip, noise, draws).reshape(both.shape)
            optimiser.step()
        learnt = both.detach()
        return torch.eye(width) + learnt[:width] @ learnt[width:].T


def embedded(target: DualGradients, data: Dataset) -> Embedded:
    """The pairs of a data set as the target sees them.

    Raises:
        BadData: There are fewer than two.
    """
    rows = [(row.image, _text(row.caption, row.answers)) for row in data.examples]
    known = [(image, text) for image, text in rows if image is not None and text]
    if len(known) < 2:
        raise BadData(
            f"{data.name} has {len(known)} pictures with a text.", "Pass rows with image and a caption or answers."
        )
    texts = list(dict.fromkeys(text for _, text in known))
    alike = torch.tensor([texts.index(text) for _, text in known])
    with torch.no_grad():
        images, told = target.embed_images([image for image, _ in known]), target.embed_texts(texts)
        zero, ends = torch.zeros(1, told.shape[1]), told[:1]
        scale = float(target.scored(ends, ends) - target.scored(zero, ends))
    return Embedded(images, told[alike], alike, scale)


def _text(caption: str | None, answers: Sequence[str]) -> str:
    return caption or (PHOTO.format(answers[0]) if answers else "")


def _dose(ledger: Ledger, clip: float, groups: int) -> dict[str, float]:
    """The ledger, as the card keeps it."""
    sensitivity = 2 * clip / groups
    return {
        "epsilon": ledger.epsilon, "delta": ledger.delta, "noise": ledger.noise, "sensitivity": sensitivity,
        "sampling": ledger.sampling, "steps": ledger.steps,
    }  # fmt: skip


METHOD = DpClip
