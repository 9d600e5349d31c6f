"""ARF: fine-tune both towers on names, anchored by richer captions and by pairs like those that the model began with.

Han et al., arXiv 2404.06244 (CVPR 2024). With N(P, T) the symmetric InfoNCE of pictures and texts:

    L = N(pictures, names) + captions N(pictures, their captions) + retrieved N(nearest pictures of a pool, their texts)

Nearest by the cosine of the model before any tuning. The paper's abstract names the two kinds of anchors; weights and
the choice of the nearest are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import DualTarget, DualWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.contrastive import AbstractContrastive, Pairs, embedded, embedded_texts, same
from vlmend.pictures.galleries import PHOTO, UNSEEN_CATEGORIES, some_objects, training_objects, training_pictures
from vlmend.pictures.named import named_pictures
from vlmend.training.batches import Pair
from vlmend.training.losses import contrastive_loss

__all__ = ["METHOD", "Arf", "nearest_others"]


@dataclass(frozen=True)
class Arf(AbstractContrastive):
    """Contrastive fine-tuning on names with two kinds of anchors.

    Attributes:
        captions: Weight of the pictures' own captions; 0 leaves them out.
        retrieved: Weight of the nearest pairs of the pool; 0 leaves them out.
    """

    name: ClassVar[str] = "arf"
    source: ClassVar[str] = "Han et al., arXiv 2404.06244, CVPR 2024"
    data: ClassVar[str] = "pictures with names and captions, and a pool of captioned pictures; training"

    captions: float = 1.0
    retrieved: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.captions, self.retrieved) < 0:
            raise BadParameter(
                f"captions={self.captions:g}, retrieved={self.retrieved:g} cannot be.",
                "They are weights of terms, 0 or more.",
            )

    def builtin(self) -> Dataset:
        """A captioned training view of each known object on a ground of light and shade, and a pool of plain ones."""
        pool = [row for row in training_pictures().examples if row.attributes["category"] not in UNSEEN_CATEGORIES]
        return _with_pool(training_objects(1, "ground"), pool)

    def sample_data(self) -> Dataset:
        """Eight captioned training pictures with their names, and seven for the pool."""
        return _with_pool(some_objects(), training_pictures(160).examples)

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows with an image and a name, anchored by captions and the other rows.

        Rows without a right answer that have an image and a caption are the pool.

        Raises:
            BadData: There are fewer than two names, or captions or a pool that a weight asks for are not there.
            MissingExtra: peft is not installed, which adapters need.
        """
        known = named_pictures(data)
        twin = self.twin(target, seed)
        learner = target.on(twin.model)
        captions = _captions(data) if self.captions else []
        anchors = _anchors(target.bare, data, known.images) if self.retrieved else []

        def loss(pairs: Pairs) -> Tensor:
            total = pairs.contrast()
            if captions:
                words = [captions[place] for place in pairs.places]
                told = embedded_texts(learner, words)
                total = total + self.captions * contrastive_loss(pairs.images, told, pairs.scale, same(words))
            if anchors:
                words = [anchors[place].text for place in pairs.places]
                pixels = target.pixels([anchors[place].image for place in pairs.places])
                seen, told = embedded(learner, pixels, words)
                total = total + self.retrieved * contrastive_loss(seen, told, pairs.scale, same(words))
            return total

        return self.made(target, data, seed, self.tuned(target, twin, known, loss, seed).edits, {})


def nearest_others(
    cosines: Float[Tensor, "picture pool"], pictures: Sequence[Image], pool: Sequence[Image]
) -> list[int]:
    """For each picture the place of the nearest one of the pool that is not itself.

    Raises:
        BadData: The pool holds nothing but a picture itself.
    """
    digests = [image.digest for image in pool]
    itself = torch.tensor([[image.digest == digest for digest in digests] for image in pictures])
    if itself.all(1).any():
        raise BadData(
            "The pool holds no picture other than those that are tuned on.",
            "Pass rows with image and caption and without answers, of other pictures, or retrieved=0.",
        )
    return cosines.masked_fill(itself, -torch.inf).argmax(1).tolist()


def _with_pool(named: Dataset, pool: Sequence[Example]) -> Dataset:
    told = (replace(row, caption=f"an image of a {row.answers[0]}") for row in named.examples)
    return replace(named, name=f"{named.name}-and-pool", examples=(*told, *pool))


def _captions(data: Dataset) -> list[str]:
    """Of the named pictures, in their order; where one has none, the text of its name.

    Raises:
        BadData: None has one.
    """
    rows = [row for row in data.examples if row.image is not None and row.answers]
    if not any(row.caption for row in rows):
        raise BadData(f"No picture with a name of {data.name} has a caption.", "Pass rows with caption, or captions=0.")
    return [row.caption or PHOTO.format(row.answers[0]) for row in rows]


def _anchors(before: DualTarget, data: Dataset, pictures: Sequence[Image]) -> list[Pair]:
    """The nearest pair of the pool for each picture: rows with image and caption and without a right answer.

    Raises:
        BadData: There is none.
    """
    pool = [Pair(row.image, row.caption) for row in data.examples if row.image and row.caption and not row.answers]
    if not pool:
        raise BadData(
            f"{data.name} has no pool of captioned pictures.",
            "Pass rows with image and caption and without answers beside the named ones, or retrieved=0.",
        )
    images = [pair.image for pair in pool]
    cosines = before.embed_images(pictures) @ before.embed_images(images).T
    return [pool[place] for place in nearest_others(cosines, pictures, images)]


METHOD = Arf
