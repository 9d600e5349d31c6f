"""Face invariance: fine-tune both towers until a picture with another person in it has the same embedding.

After "They're All Doctors" (arXiv 2406.11331), which paints other people into pictures, and fine-tunes on all of them
with a cohesion loss over the variants of one picture. With e(x) the unit-length embedding of a picture, x' the one
with another person,

    L = InfoNCE + cohere * mean |e(x) - e(x')|^2.

The mend at less strength goes part of the way between the weights (`vlmend.core.mend.Mend.scaled`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter
from vlmend.methods.contrastive import Pairs
from vlmend.methods.grouped import AbstractGrouped
from vlmend.methods.pairs import counterpart_places
from vlmend.pictures.counterparts import with_counterparts
from vlmend.pictures.named import named_pictures

__all__ = ["METHOD", "FaceInvariance"]


@dataclass(frozen=True)
class FaceInvariance(AbstractGrouped):
    """Contrastive fine-tuning with pairs of pictures that differ in the person alone.

    Attributes:
        cohere: Weight of the distance within a pair; 0 is plain fine-tuning on all pictures.
        crowd: Pairs of a step.
    """

    name: ClassVar[str] = "face_invariance"
    source: ClassVar[str] = "arXiv 2406.11331, and Chuang et al., arXiv 2302.00070"
    data: ClassVar[str] = "named pictures of people, and each with another person in it (step face_edit); training"
    quick: ClassVar[dict[str, Any]] = {**AbstractGrouped.quick, "crowd": 2}

    cohere: float = 5.0
    crowd: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cohere < 0 or self.crowd < 1:
            raise BadParameter(
                f"cohere={self.cohere:g}, crowd={self.crowd} cannot be.", "cohere is 0 or more, crowd at least 1."
            )

    def builtin(self) -> Dataset:
        """The people and things of its kin, and each person as one of the other gender in the same view."""
        return with_counterparts(super().builtin())

    def sample_data(self) -> Dataset:
        """Eight people with their counterparts, and two objects."""
        return with_counterparts(super().sample_data())

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer.

        A row whose attribute `of` is the id of another is that picture with another person in it.

        Raises:
            BadData: There are fewer than two names, or no pair.
            MissingExtra: peft is not installed, which adapters need.
        """
        named = named_pictures(data)
        pairs_of = counterpart_places(data, [row for row in data.examples if row.image is not None and row.answers])
        twin = self.twin(target, seed)
        learner = target.on(twin.model)

        def loss(pairs: Pairs) -> Tensor:
            plain = pairs.contrast()
            if not self.cohere:
                return plain
            drawn = self.people(range(len(pairs_of)), self.crowd, f"{seed}:{pairs.step}")
            images = [named.images[pairs_of[place][side]] for side in (0, 1) for place in drawn]
            one, other = learner.embed_pixels(target.pixels(images)).chunk(2)
            return plain + self.cohere * (one - other).square().sum(1).mean()

        return self.made(target, data, seed, self.tuned(target, twin, named, loss, seed).edits, {})


METHOD = FaceInvariance
