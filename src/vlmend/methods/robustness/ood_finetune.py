"""UEO: tune norm layers on unlabelled pictures, known and unknown mixed, so that either kind is met as it should be.

Universal entropy optimisation, Liang et al., arXiv 2308.12919 (ICML 2024). With p(x) the probabilities among the known
names, H the entropy and w(x) the confidence of the model as it was (maximum concept matching of a picture):

    L = sum w(x) H(p(x)) / sum w(x) - spread H(sum p(x) / w(x) / sum 1 / w(x))

Pictures that look known are to be named with certainty; those that look unknown count for the second term, which
spreads them over the names. No label is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.metrics.detection import mcm
from vlmend.core.targets import DualWeights, Pixels
from vlmend.errors import BadData, BadParameter
from vlmend.methods.tuning import AbstractTuning
from vlmend.pictures.galleries import PHOTO, some_objects, training_objects, training_pictures

__all__ = ["METHOD", "OodFinetune", "universal_entropy"]


@dataclass(frozen=True)
class OodFinetune(AbstractTuning):
    """Tuning of the vision tower's norm layers on unlabelled pictures and the names of known things.

    Attributes:
        spread: Weight of the entropy of the mean; 0 leaves it out.
        trust: Power of the confidences; 0 counts every picture alike, with `spread` 0 that is entropy minimisation.
    """

    name: ClassVar[str] = "ood_finetune"
    source: ClassVar[str] = "Liang et al., arXiv 2308.12919, ICML 2024"
    data: ClassVar[str] = "pictures without labels, and the names of known things; training"
    passes: ClassVar[str] = "none; scale and shift of the vision tower's norm layers are replaced"
    only: ClassVar[str] = "norm"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rate": 1e-2}

    steps: int = 30
    rate: float = 1e-3
    spread: float = 1.0
    trust: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.spread, self.trust) < 0 or self.train != "weights":
            raise BadParameter(
                f"spread={self.spread:g}, trust={self.trust:g}, train={self.train} cannot be.",
                "spread and trust are 0 or more, and train is weights: norm layers take no adapters.",
            )

    def builtin(self) -> Dataset:
        """A training view of each known object on a ground of light and shade, and people, words and scenes."""
        named = training_objects(1, "ground")
        others = (row for row in training_pictures().examples if row.group != "object")
        return Dataset(f"{named.name}-and-others", (*named.examples, *others), named.licence)

    def sample_data(self) -> Dataset:
        """Eight training pictures of objects, whose names are read as a list."""
        return some_objects()

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin on every row with an image; the first answers are the known names, whichever row they stand in.

        Raises:
            BadData: There are fewer than two names.
        """
        images = [row.image for row in data.examples if row.image is not None]
        names = sorted({row.answers[0] for row in data.examples if row.answers})
        if len(names) < 2 or not images:
            raise BadData(
                f"{data.name} has {len(images)} pictures and {len(names)} names of known things.",
                "Pass rows with image, and among them or beside them rows with answers: two names or more.",
            )
        before = target.bare
        texts = before.embed_texts([PHOTO.format(name) for name in names])
        trusted = mcm(before.embed_images(images) @ texts.T).float() ** self.trust
        twin = self.twin(target, seed)
        learner = target.on(twin.model)

        def loss(step: int, pixels: Pixels, places: Sequence[int]) -> Tensor:
            del step
            logits = learner.scored(learner.embed_pixels(pixels), texts)
            return universal_entropy(logits, trusted[list(places)], self.spread)

        return self.made(target, data, seed, self.trained(target, twin, images, loss, seed).edits, {})


def universal_entropy(
    logits: Float[Tensor, "picture name"], trusted: Float[Tensor, " picture"], spread: float
) -> Tensor:
    """The mean entropy of pictures by trust, less `spread` times the entropy of their mean by the inverse of trust."""
    shares, doubts = trusted / trusted.sum(), (1 / trusted) / (1 / trusted).sum()
    chances = logits.softmax(1)
    each = -(chances * logits.log_softmax(1)).sum(1)
    mean = doubts @ chances
    return shares @ each + spread * (mean * mean.clamp_min(1e-12).log()).sum()


METHOD = OodFinetune
