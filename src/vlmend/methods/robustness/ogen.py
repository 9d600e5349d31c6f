"""OGEN: a learnt prompt that does not forget things of which only the name is known, by made-up picture embeddings.

Zang et al., arXiv 2401.15914 (ICLR 2024). A generator makes the embedding of a picture of a thing q from k things whose
texts are K and whose pictures are V:

    g(q; K, V) = normalise(FFN(q) + MHA(q, K, V))

It learns on known things: each from its k nearest, and these from it. Then a CoOp prompt learns to name real and
made-up embeddings: with w the weight `synthetic`,

    L = (1 - 0.75 w) CE(real) + w [0.25 CE(own) + 0.25 CE(nearest) + 0.5 CE(new)]

where own is made from the nearest things, and the nearest known and new things from the picture at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.metrics.calibration import nll
from vlmend.core.targets import DualWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.prompting import AbstractPrompting, every_second_thing
from vlmend.pictures.galleries import PHOTO, some_objects
from vlmend.pictures.named import named_pictures
from vlmend.training.loop import LoopSettings, train_at_once

__all__ = ["METHOD", "Generator", "Known", "Ogen", "nearest"]

HEADS = 4
HIDDEN = 4
"""Width of the feed-forward part, in embeddings."""
RATE = 3e-3
"""Peak learning rate of the generator."""


@dataclass(frozen=True)
class Ogen(AbstractPrompting):
    """CoOp beside made-up pictures of known and of new things.

    Attributes:
        synthetic: Weight of the made-up pictures, 0 to 1; 0 is CoOp.
        neighbours: Things from which another is made, and new things made from each picture.
        generator_steps: Optimiser steps of the generator, over all pictures at once.
    """

    name: ClassVar[str] = "ogen"
    source: ClassVar[str] = "Zang et al., arXiv 2401.15914, ICLR 2024"
    passes: ClassVar[str] = "none; a few tokens more in each text"
    data: ClassVar[str] = "pictures with their names, and names without pictures; training"
    quick: ClassVar[Mapping[str, Any]] = {**AbstractPrompting.quick, "generator_steps": 2}

    synthetic: float = 1.0
    neighbours: int = 3
    generator_steps: int = 150

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.synthetic <= 1 or min(self.neighbours, self.generator_steps) < 1:
            raise BadParameter(
                f"synthetic={self.synthetic:g}, neighbours={self.neighbours}, generator_steps={self.generator_steps} "
                "cannot be.",
                "synthetic lies between 0 (CoOp) and 1, the others are at least 1.",
            )

    def builtin(self) -> Dataset:
        """Every second known object, and the names of the others."""
        seen, others = every_second_thing()
        return Dataset("every-second-object-and-names", (*seen.examples, *others.examples), seen.licence)

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names, and three names more."""
        rows = some_objects()
        names = (Example(name, answers=(name,)) for name in ("anchor", "lamp", "river"))
        return Dataset("a-few-objects-and-names", (*rows.examples, *names), rows.licence)

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Learn the prompt on rows with an image and a right answer; rows with an answer and no image name new things.

        Raises:
            BadData: There are too few names of either kind.
        """
        known = named_pictures(data)
        right = torch.tensor(known.right)
        images = target.bare.embed_images(known.images)
        named = {row.answers[0] for row in data.examples if row.image is None and row.answers}
        names = [PHOTO.format(name) for name in sorted(named - set(known.names))] if self.synthetic else []
        made = self._made(target, images, right, known.texts, names, data.name, seed) if self.synthetic else None

        def loss(step: int, view: DualWeights, places: Sequence[int]) -> Tensor:
            own = right[list(places)]
            texts = normalize(view.text_features([*known.texts, *names]), dim=1)

            def cost(embedded: Tensor, wanted: Tensor, among: Tensor) -> Tensor:
                return nll(view.scored(embedded, among), wanted, target.pair_kind).mean()

            real = cost(images[list(places)], own, texts[: len(known.texts)])
            if made is None:
                return real
            parts = made.of(images[list(places)], own, seed * self.steps + step)
            others = [share * cost(*part, texts) for share, part in zip((0.25, 0.25, 0.5), parts, strict=True)]
            return (1 - 0.75 * self.synthetic) * real + self.synthetic * sum(others, torch.zeros(()))

        return self.learnt(target, data, self.prompt(target, seed), len(images), seed, loss)

    def _made(
        self, target: DualWeights, images: Float[Tensor, "image width"], right: Int[Tensor, " image"],
        texts: Sequence[str], names: Sequence[str], data: str, seed: int,
    ) -> Known:  # fmt: skip
        """The known things with a generator that has learnt them."""
        if len(texts) <= self.neighbours or len(names) < self.neighbours:
            raise BadData(
                f"{data} has pictures of {len(texts)} things and names of {len(names)} others.",
                f"Pass pictures of more than {self.neighbours} things, and {self.neighbours} or more rows with answers "
                "and no image, the names of things to come; or synthetic=0, which is CoOp.",
            )
        embedded = target.bare.embed_texts([*texts, *names])
        known = Known(embedded[: len(texts)], embedded[len(texts) :], images, right, self.neighbours, seed)
        known.learn(self.generator_steps)
        return known


class Generator(nn.Module):
    """Makes picture embeddings of things from texts and picture embeddings of other things.

    Args:
        width: Of embeddings.
        seed: Of its first weights.
    """

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # modules draw from the global generator
            torch.manual_seed(seed)
            self.attention = nn.MultiheadAttention(width, math.gcd(HEADS, width), batch_first=True)
            inner = HIDDEN * width
            self.feed = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))

    def forward(
        self, wanted: Float[Tensor, "row width"], texts: Float[Tensor, "row known width"],
        images: Float[Tensor, "row known width"],
    ) -> Float[Tensor, "row width"]:  # fmt: skip
        """Embeddings of length 1 of what the texts `wanted` tell."""
        drawn, _ = self.attention(wanted[:, None], texts, images, need_weights=False)
        return normalize(self.feed(wanted) + drawn[:, 0], dim=1)


class Known:
    """Known things, their statistics, and the generator.

    Args:
        texts: Embedded names of known things.
        new: Embedded names of new things.
        images: Embedded pictures.
        right: Which known thing each shows.
        count: Things from which another is made.
        seed: Of generator and noise.
    """

    def __init__(
        self, texts: Float[Tensor, "thing width"], new: Float[Tensor, "new width"],
        images: Float[Tensor, "image width"], right: Int[Tensor, " image"], count: int, seed: int,
    ) -> None:  # fmt: skip
        groups = [images[right == thing] for thing in range(len(texts))]
        self.means = torch.stack([group.mean(0) for group in groups])
        self.spreads = torch.stack([group.std(0, correction=0) for group in groups])
        self.near = nearest(self.means, self.means, count, others=True)
        self.near_new = nearest(texts, new, count)
        self.generator = Generator(texts.shape[1], seed)
        self._texts, self._new, self._images, self._right, self._seed = texts, new, images, right, seed

    def learn(self, steps: int) -> None:
        """Fit the generator: squared distance of each thing's pictures from those made, and of its nearest likewise."""

        def loss(step: int) -> Tensor:
            own, near = self._of_known(self._images, self._right, self._seed * steps + step)
            wanted = normalize(self.means, dim=1)[self.near[self._right].flatten()]
            return (own - self._images).square().sum(1).mean() + (near - wanted).square().sum(1).mean()

        train_at_once(list(self.generator.parameters()), loss, LoopSettings(steps, RATE))
        self.generator.requires_grad_(requires_grad=False)

    def of(
        self, images: Float[Tensor, "row width"], right: Int[Tensor, " row"], seed: int
    ) -> list[tuple[Float[Tensor, "made width"], Int[Tensor, " made"]]]:
        """Made-up embeddings and which text is right: of the own thing, its nearest, and the nearest new ones."""
        own, near = self._of_known(images, right, seed)
        new = self.near_new[right].flatten()
        made = self._from(images, right, self._new[new])
        return [(own, right), (near, self.near[right].flatten()), (made, len(self._texts) + new)]

    def _of_known(self, images: Tensor, right: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Each row's thing from its nearest with noise, and each of its nearest from the row."""
        generator = torch.Generator().manual_seed(seed)
        noisy = self.means + torch.rand(self.means.shape, generator=generator) * self.spreads
        near = self.near[right]
        own = self.generator(self._texts[right], self._texts[near], noisy[near])
        return own, self._from(images, right, self._texts[near.flatten()])

    def _from(self, images: Tensor, right: Tensor, wanted: Tensor) -> Tensor:
        """`count` things for each row, each from that row alone."""
        repeats = len(wanted) // len(images)
        texts, seen = (one.repeat_interleave(repeats, 0)[:, None] for one in (self._texts[right], images))
        return self.generator(wanted, texts, seen)


def nearest(
    rows: Float[Tensor, "row width"], among: Float[Tensor, "other width"], count: int, *, others: bool = False
) -> Int[Tensor, "row count"]:
    """Places of the nearest by cosine, best first; with `others` never a row itself."""
    cosines = normalize(rows, dim=1) @ normalize(among, dim=1).T
    if others:
        cosines = cosines.fill_diagonal_(-torch.inf)
    return cosines.topk(count, dim=1).indices


METHOD = Ogen
