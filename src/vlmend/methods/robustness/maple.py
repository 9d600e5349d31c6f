"""MaPLe: learnt tokens in the first blocks of the text tower, and a linear map from them to tokens of pictures.

Khattak et al., arXiv 2210.03117 (CVPR 2023). With P_k the tokens that block k of the text tower reads behind the first
one, block k of the vision tower reads F_k(P_k) = W_k P_k + b_k behind the patches. P, W and b learn to give pictures
their names; everything else is frozen. Without the maps and with one block it is CoOp (arXiv 2109.01134).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.metrics.calibration import nll
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter
from vlmend.methods.prompting import AbstractPrompting, every_second_thing
from vlmend.pictures.galleries import some_objects
from vlmend.pictures.named import named_pictures

__all__ = ["METHOD", "Maple"]


@dataclass(frozen=True)
class Maple(AbstractPrompting):
    """Coupled prompts of both towers.

    Attributes:
        depth: Blocks that read tokens of their own.
        visual: Whether pictures get tokens too; without them and with depth 1 it is CoOp.
    """

    name: ClassVar[str] = "maple"
    source: ClassVar[str] = "Khattak et al., arXiv 2210.03117, CVPR 2023"
    passes: ClassVar[str] = "none; a few tokens more in each text and picture"
    data: ClassVar[str] = "pictures with their names; training"

    depth: int = 2
    visual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise BadParameter(f"depth={self.depth} is no number of blocks.", "Pass 1 or more.")

    def builtin(self) -> Dataset:
        """Every second known object: the others are new to it."""
        return every_second_thing()[0]

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Learn the tokens on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            BadParameter: `depth` is above the blocks of the model.
        """
        known = named_pictures(data)
        right = torch.tensor(known.right)
        still = None if self.visual else target.bare.embed_images(known.images)

        def loss(step: int, view: DualWeights, places: Sequence[int]) -> Tensor:
            del step
            images = (
                view.embed_pixels(target.pixels([known.images[place] for place in places]))
                if still is None
                else still[list(places)]
            )
            texts = normalize(view.text_features(known.texts), dim=1)
            return nll(view.scored(images, texts), right[list(places)], target.pair_kind).mean()

        prompt = self.prompt(target, seed, depth=self.depth, visual=self.visual)
        return self.learnt(target, data, prompt, len(known.images), seed, loss)


METHOD = Maple
