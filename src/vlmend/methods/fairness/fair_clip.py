"""FairCLIP: fine-tune both towers so that pictures of every group are as near to their texts as pictures of all.

Luo et al., CVPR 2024 (arXiv 2403.19949). With s_i the cosine of picture i and its own text, P a batch of people, P_g
one of group g alone, W the Sinkhorn divergence of two sets of numbers with the cost |x - y|^2 / 2, and InfoNCE over
the pairs of the step,

    L = InfoNCE + weight * sum over groups g of W(s of P, s of P_g).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter, MissingExtra
from vlmend.methods.contrastive import Pairs, embedded
from vlmend.methods.grouped import AbstractGrouped, Grouped, grouped_pictures

__all__ = ["METHOD", "FairClip", "sinkhorn"]

Distance = Callable[[Float[Tensor, " score"], Float[Tensor, " other"]], Tensor]


@dataclass(frozen=True)
class FairClip(AbstractGrouped):
    """Contrastive fine-tuning with the distance of each group's scores from those of all.

    Attributes:
        weight: Of the distances; 0 is plain fine-tuning.
        blur: Of the divergence: numbers that lie nearer together than this are hardly told apart.
        crowd: Pictures of the batch of all people, and of that of each group.
    """

    name: ClassVar[str] = "fair_clip"
    source: ClassVar[str] = "Luo et al., arXiv 2403.19949, CVPR 2024"
    quick: ClassVar[dict[str, Any]] = {**AbstractGrouped.quick, "crowd": 2}

    weight: float = 100.0
    blur: float = 1e-3
    crowd: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight < 0 or self.blur <= 0 or self.crowd < 2:
            raise BadParameter(
                f"weight={self.weight:g}, blur={self.blur:g}, crowd={self.crowd} cannot be.",
                "weight is 0 or more, blur above 0, crowd at least 2.",
            )

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the category is the group.

        Raises:
            BadData: There are fewer than two names or groups, or a group of a single picture.
            MissingExtra: geomloss is not installed, or peft, which adapters need.
        """
        held = grouped_pictures(data)
        twin = self.twin(target, seed)
        learner = target.on(twin.model)
        distance = sinkhorn(self.blur) if self.weight else None

        def loss(pairs: Pairs) -> Tensor:
            plain = pairs.contrast()
            if distance is None:
                return plain
            return plain + self.weight * self._apart(target, learner, held, distance, f"{seed}:{pairs.step}")

        return self.made(target, data, seed, self.tuned(target, twin, held.named, loss, seed).edits, {})

    def _apart(self, target: DualWeights, learner: DualWeights, held: Grouped, distance: Distance, key: str) -> Tensor:
        """Sum over groups of the distance of its scores from those of all people, drawn for this step."""
        every = [place for places in held.known.values() for place in places]
        crowds = {"": every, **held.known}
        drawn = {name: self.people(places, self.crowd, f"{key}:{name}") for name, places in crowds.items()}
        places = [place for own in drawn.values() for place in own]
        pixels = target.pixels([held.named.images[place] for place in places])
        seen, told = embedded(learner, pixels, held.words(places))
        everyone, *groups = (seen * told).sum(1).split([len(own) for own in drawn.values()])
        return torch.stack([distance(everyone, own) for own in groups]).sum()


def sinkhorn(blur: float) -> Distance:
    """The Sinkhorn divergence of two sets of numbers, each number weighing alike; differentiable in both.

    As the blur goes to 0 it is half the squared 2-Wasserstein distance: of sets of one size, half the mean squared
    difference of the sorted numbers.

    Raises:
        MissingExtra: geomloss is not installed.
    """
    try:
        from geomloss import SamplesLoss
    except ImportError as problem:
        raise MissingExtra(
            "Sinkhorn distances are computed with geomloss, which is not installed.", "pip install 'vlmend[fairness]'"
        ) from problem
    loss: Any = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=0.9, backend="tensorized")
    return lambda one, other: loss(one[:, None], other[:, None])


METHOD = FairClip
