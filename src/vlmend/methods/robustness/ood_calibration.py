"""Calibrate a dual encoder on pictures of known things: a temperature, and a threshold for what is unknown.

The temperature (Guo et al. 2017, arXiv 1706.04599) makes logits / T fit the right names best. The threshold keeps 95 %
of the known pictures by maximum concept matching (Ming et al. 2022, arXiv 2211.13445); no picture of an unknown
thing is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import AcceptAbove, ScaleLogits
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.metrics.calibration import best_temperature
from vlmend.core.metrics.detection import KEPT, mcm, threshold_keeping
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadParameter
from vlmend.pictures.galleries import object_pictures, some_objects
from vlmend.pictures.named import named_pictures

__all__ = ["METHOD", "OodCalibration"]


@dataclass(frozen=True)
class OodCalibration(AbstractMethod[DualTarget]):
    """Temperature of the logits, and a threshold below which a picture is rejected.

    Attributes:
        kept: Share of known pictures that the threshold keeps, on the pictures that it is fitted on.
    """

    name: ClassVar[str] = "ood_calibration"
    source: ClassVar[str] = "Guo et al., arXiv 1706.04599; Ming et al., arXiv 2211.13445"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; the names of known things are embedded to accept a picture"
    data: ClassVar[str] = "pictures of known things with their names"
    works_on: ClassVar[Kind] = "dual"

    kept: float = KEPT

    def __post_init__(self) -> None:
        if not 0 < self.kept < 1:
            raise BadParameter(f"kept={self.kept:g} is no share.", "Pass one between 0 and 1, such as 0.95.")

    def builtin(self) -> Dataset:
        """Pictures of the validation split."""
        return object_pictures("validation")

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Fit both on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
        """
        known = named_pictures(data)
        images, texts = known.images, known.texts
        right = torch.tensor(known.right)
        temperature = best_temperature(target.logits(images, texts), right, target.pair_kind)
        scores = mcm(target.embed_images(images) @ target.embed_texts(texts).T)
        threshold = threshold_keeping(scores.numpy(), self.kept)
        edits = [ScaleLogits(temperature), AcceptAbove(tuple(texts), threshold)]
        return self.made(target, data, seed, edits, {})


METHOD = OodCalibration
