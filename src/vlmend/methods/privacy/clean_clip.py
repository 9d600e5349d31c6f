"""CleanCLIP: fine-tune both towers on clean pairs so that each modality stands on its own, and a patch loses its hold.

Bansal et al., arXiv 2303.03323 (ICCV 2023). For a batch with unit-length embeddings i of pictures and t of their texts,
i+ and t+ of the same changed a little, and InfoNCE symmetric:

    L = InfoNCE(i, t) + alone [InfoNCE(i, i+) + InfoNCE(t, t+)]

A backdoor ties a patch to a text; the second part asks of each picture to be told from others by itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter
from vlmend.methods.contrastive import AbstractContrastive, Pairs, embedded
from vlmend.pictures.changes import variants
from vlmend.pictures.galleries import FRAMES, PHOTO
from vlmend.pictures.named import named_pictures
from vlmend.training.losses import contrastive_loss

__all__ = ["METHOD", "CleanClip"]


@dataclass(frozen=True)
class CleanClip(AbstractContrastive):
    """Contrastive fine-tuning on clean pairs, between modalities and within each.

    Attributes:
        alone: Weight of what is within modalities; 0 leaves it out.
    """

    name: ClassVar[str] = "clean_clip"
    source: ClassVar[str] = "Bansal et al., arXiv 2303.03323, ICCV 2023"

    alone: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alone < 0:
            raise BadParameter(f"alone={self.alone:g} cannot be.", "It is the weight of a term, 0 or more.")

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            MissingExtra: peft is not installed, which adapters need.
        """
        known, twin = named_pictures(data), self.twin(target, seed)
        learner = target.on(twin.model)

        def loss(pairs: Pairs) -> Tensor:
            total = pairs.contrast()
            if self.alone:
                rng = random.Random(f"clean_clip:{seed}:{pairs.step}")
                pixels = target.pixels(_changed([known.images[place] for place in pairs.places], rng))
                images, texts = embedded(learner, pixels, [_reworded(text, rng) for text in pairs.words])
                within = contrastive_loss(pairs.images, images, pairs.scale, pairs.true)
                total = total + self.alone * (within + contrastive_loss(pairs.texts, texts, pairs.scale, pairs.true))
            return total

        return self.made(target, data, seed, self.tuned(target, twin, known, loss, seed).edits, {})


def _changed(images: Sequence[Image], rng: random.Random) -> list[Image]:
    """Each picture mirrored, cropped, turned or darkened, as it falls."""
    return [Image.from_pixels(rng.choice(variants(image.decode()))) for image in images]


def _reworded(text: str, rng: random.Random) -> str:
    """The name of a text in another frame."""
    return rng.choice(FRAMES[1:]).format(text.removeprefix(PHOTO.format("")))


METHOD = CleanClip
