"""Adversarial debiasing: fine-tune both towers until similarities no longer tell an adversary whose picture it is.

Berg et al., AACL 2022 (arXiv 2203.11933). Of each picture of a person an adversary, a small network, reads the cosines
with K neutral texts and guesses the group. It is taught `inner` steps before each step of the towers, and with G
groups the towers lower

    L = InfoNCE + hide * max(0, ln G - cross-entropy of the adversary)

so an adversary that does no better than guessing pushes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter
from vlmend.methods.adversary import Guesser, certainty
from vlmend.methods.contrastive import Pairs, embedded_texts
from vlmend.methods.grouped import AbstractGrouped, grouped_pictures

__all__ = ["METHOD", "AdversarialDebiasing"]


@dataclass(frozen=True)
class AdversarialDebiasing(AbstractGrouped):
    """Contrastive fine-tuning against an adversary that reads the cosines of people with neutral texts.

    Attributes:
        hide: Weight of what the adversary knows; 0 is plain fine-tuning.
        inner: Steps of the adversary before each step of the towers.
        crowd: People that it sees at each.
    """

    name: ClassVar[str] = "adversarial_debiasing"
    source: ClassVar[str] = "Berg et al., arXiv 2203.11933, AACL 2022"
    quick: ClassVar[dict[str, Any]] = {**AbstractGrouped.quick, "crowd": 4, "inner": 1}

    hide: float = 1.0
    inner: int = 5
    crowd: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hide < 0 or self.inner < 1 or self.crowd < 2:
            raise BadParameter(
                f"hide={self.hide:g}, inner={self.inner}, crowd={self.crowd} cannot be.",
                "hide is 0 or more, inner at least 1, crowd at least 2.",
            )

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the category is the group.

        The neutral texts are the names of all people.

        Raises:
            BadData: There are fewer than two names or groups, or a group of a single picture.
            MissingExtra: peft is not installed, which adapters need.
        """
        held = grouped_pictures(data)
        twin = self.twin(target, seed)
        learner, known = target.on(twin.model), held.known
        people = [place for places in known.values() for place in places]
        label = {place: k for k, places in enumerate(known.values()) for place in places}
        neutral = sorted(set(held.words(people)))
        guesser = Guesser(len(neutral), len(known), seed)

        def loss(pairs: Pairs) -> Tensor:
            plain = pairs.contrast()
            if not self.hide:
                return plain
            places = self.people(people, self.crowd, f"{seed}:{pairs.step}")
            seen = learner.embed_pixels(target.pixels([held.named.images[place] for place in places]))
            scores = pairs.scale * seen @ embedded_texts(learner, neutral).T
            labels = torch.tensor([label[place] for place in places])
            guesser.learn(scores.detach(), labels, self.inner)
            return plain + self.hide * certainty(guesser(scores), labels)

        return self.made(target, data, seed, self.tuned(target, twin, held.named, loss, seed).edits, {})


METHOD = AdversarialDebiasing
