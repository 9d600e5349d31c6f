"""Disentanglement by an adversary: what an embedding says beside the group, and the group on its own.

Embeddings e of pictures are taken apart into u = U e, from which an adversary guesses the group s, and a vector c_s for
each of K groups. The adversary is taught `inner` steps before each of theirs, and U and c lower

    mean |u + c_s - e|^2 + hide * max(0, ln K - cross-entropy of the adversary),

numbers scaled to the embeddings' deviation. What the group adds can go into c, so u can do without it. The mend is U.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadParameter
from vlmend.methods.adversary import Guesser, certainty
from vlmend.methods.grouped import few_people_and_things, group_counts
from vlmend.pictures.galleries import people_and_things
from vlmend.training.loop import LoopSettings, train_at_once

__all__ = ["METHOD", "GanDisentangle", "taken_apart"]

NOBODY = -1
"""The label of a picture of no known group."""


@dataclass(frozen=True)
class GanDisentangle(AbstractMethod[DualTarget]):
    """A linear encoder that an adversary guesses the group from, beside a vector of each group.

    Attributes:
        hide: Weight of what the adversary knows; 0 leaves everything as it is.
        inner: Steps of the adversary before each of the encoder.
        steps: Steps of the encoder.
        rate: Its peak learning rate.
    """

    name: ClassVar[str] = "gan_disentangle"
    source: ClassVar[str] = "after Goodfellow et al., arXiv 1406.2661; the encoder and its adversary are ours"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product a picture"
    data: ClassVar[str] = "pictures, the group of people"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 10, "inner": 1, "rate": 0.1}

    hide: float = 10.0
    inner: int = 3
    steps: int = 300
    rate: float = 1e-2

    def __post_init__(self) -> None:
        if self.hide < 0 or min(self.inner, self.steps) < 1 or self.rate <= 0:
            raise BadParameter(
                f"hide={self.hide:g}, inner={self.inner}, steps={self.steps}, rate={self.rate:g} cannot be.",
                "hide is 0 or more, rate above 0, the others are at least 1.",
            )

    def builtin(self) -> Dataset:
        """Men and women of 20 professions, and a view of each known object, whose group is none."""
        return people_and_things()

    def sample_data(self) -> Dataset:
        """Eight people and two objects."""
        return few_people_and_things()

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Learn the encoder on the pictures; the category is the group, none for what shows nobody.

        Raises:
            BadData: There are fewer than two groups, or a group of a single picture.
        """
        rows = [row for row in data.examples if row.image is not None]
        names = sorted(group_counts(data.name, [row.group for row in rows]))
        embedded = target.embed_images([row.image for row in rows if row.image is not None])
        labels = torch.tensor([names.index(row.group) if row.group else NOBODY for row in rows])
        encode, _ = taken_apart(self, embedded, labels, seed)
        return self.made(target, data, seed, [MapImages(encode)], {})


def taken_apart(
    method: GanDisentangle, embedded: Float[Tensor, "row width"], labels: Int[Tensor, " row"], seed: int
) -> tuple[Float[Tensor, "width width"], Float[Tensor, "group width"]]:
    """The encoder U and the vector c of each group; a label below 0 is none."""
    width, groups, people = embedded.shape[1], int(labels.max()) + 1, labels >= 0
    encode, own = nn.Parameter(torch.eye(width)), nn.Parameter(torch.zeros(groups, width))
    told = one_hot(labels.clamp(min=0), groups).float() * people[:, None]
    guesser, scaled = Guesser(width, groups, seed), embedded / embedded.std().clamp(min=1e-9)

    def loss(step: int) -> Tensor:
        del step
        rest = scaled @ encode.T
        missed = (rest + told @ own - scaled).square().sum(1).mean()
        if not method.hide:
            return missed
        guesser.learn(rest[people].detach(), labels[people], method.inner)
        return missed + method.hide * certainty(guesser(rest[people]), labels[people])

    train_at_once([encode, own], loss, LoopSettings(method.steps, method.rate))
    return encode.detach(), own.detach()


METHOD = GanDisentangle
