"""Adversarial privacy: fine-tune against an adversary that tells training pairs from pairs kept aside.

Nasr, Shokri and Houmansadr, CCS 2018 (arXiv 1807.05852). Of a pair the adversary h sees its cosine and how surely, in a
crowd, the picture finds its text and the text its picture. It is taught `inner` steps before each step of the towers to
tell members from reference pairs, and the towers lower

    L = InfoNCE + hide * max(0, ln 2 - cross-entropy of h)

so an adversary that does no better than guessing pushes nothing. With `epsilon` the pictures of InfoNCE are moved by
projected gradient ascent first: adversarial training in the other sense, against attacks on pixels, which Song, Shokri
and Mittal (CCS 2019, arXiv 1905.10291) found to give members away more, not less.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.adversary import Guesser, certainty
from vlmend.methods.contrastive import AbstractContrastive, Pairs, embedded
from vlmend.pictures.named import Texts, pairs_in, text_of
from vlmend.training.adversary import Adversary, worst_pixels
from vlmend.training.batches import chosen
from vlmend.training.losses import contrastive_loss

__all__ = ["METHOD", "TELLTALES", "AdversarialPrivacy", "telltales"]

TELLTALES = 3
"""Numbers of a pair that the adversary sees."""

CLIMBS = 2
"""Steps of the adversary on pixels, each of 2.5 epsilon over their number."""

REFERENCE, UNSEEN = "reference", "no"
"""Values of the attribute `member`: kept aside, and of no use here since an audit needs pairs that nobody learnt."""


@dataclass(frozen=True)
class AdversarialPrivacy(AbstractContrastive):
    """Contrastive fine-tuning of both towers against an adversary that tells members.

    Attributes:
        hide: Weight of what the adversary knows; 0 is plain fine-tuning.
        inner: Steps of the adversary before each step of the towers.
        crowd: Members, and as many reference pairs, that it sees at each.
        aside: Share of the pairs that are kept aside as reference, drawn by the seed, where the data name none.
        epsilon: Largest change of a pixel in training, as a share of black to white; 0 leaves pictures as they are.
    """

    name: ClassVar[str] = "adversarial_privacy"
    source: ClassVar[str] = "Nasr et al., arXiv 1807.05852, CCS 2018"
    data: ClassVar[str] = "pairs of pictures and captions or names, some of them kept aside; training"
    quick: ClassVar[dict[str, object]] = {**AbstractContrastive.quick, "crowd": 4, "inner": 1}

    hide: float = 1.0
    inner: int = 5
    crowd: int = 32
    aside: float = 0.5
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hide < 0 or self.inner < 1 or self.crowd < 2 or not 0 < self.aside < 1 or not 0 <= self.epsilon <= 1:
            raise BadParameter(
                f"hide={self.hide:g}, inner={self.inner}, crowd={self.crowd}, aside={self.aside:g}, "
                f"epsilon={self.epsilon:g} cannot be.",
                "hide is 0 or more, inner at least 1, crowd at least 2, aside between 0 and 1, epsilon from 0 to 1.",
            )

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin on the members: rows with an image and a caption, or else an answer.

        Rows whose attribute `member` is `reference` are kept aside; where there are none, a drawn share is. Those that
        say `no` are left out: they are what an audit compares members with.

        Raises:
            BadData: There are fewer than two members or two reference pairs.
            MissingExtra: peft is not installed, which adapters need.
        """
        members, aside, drawn = self.parted(data, seed)
        twin = self.twin(target, seed)
        learner, h = target.on(twin.model), Guesser(TELLTALES, 2, seed, normed=False)

        def seen(known: Texts, key: str, scale: float) -> Float[Tensor, "pair number"]:
            places = chosen(range(len(known.images)), self.crowd, f"{self.name}:{key}")
            words = [known.texts[known.right[place]] for place in places]
            return telltales(*embedded(learner, target.pixels([known.images[k] for k in places]), words), scale)

        def loss(pairs: Pairs) -> Tensor:
            plain = self._hardened(learner, pairs, seed) if self.epsilon else pairs.contrast()
            if not self.hide:
                return plain
            of = [
                seen(known, f"{kind}:{seed}:{pairs.step}", pairs.scale)
                for kind, known in (("in", members), ("out", aside))
            ]
            labels = torch.tensor([k for k, one in enumerate(of) for _ in one])
            numbers = torch.cat(of)
            h.learn(numbers.detach(), labels, self.inner)
            return plain + self.hide * certainty(h(numbers), labels)

        dose = {"members": float(len(members.images)), "reference": float(len(aside.images))}
        made = self.made(target, data, seed, self.tuned(target, twin, members, loss, seed).edits, dose)
        told = f"{len(aside.images)} of the rows were kept aside as reference, drawn by the seed; they were not learnt."
        return replace(made, card=replace(made.card, notes=(*made.card.notes, *([told] if drawn else []))))

    def parted(self, data: Dataset, seed: int) -> tuple[Texts, Texts, bool]:
        """Members and reference pairs, and whether these were drawn.

        Raises:
            BadData: There are fewer than two of either.
        """
        pairs = [row for row in data.examples if row.image is not None and text_of(row)]
        rows = [row for row in pairs if row.attributes.get("member") != UNSEEN]
        aside = [row for row in rows if row.attributes.get("member") == REFERENCE]
        if drawn := not aside:
            aside = random.Random(f"{self.name}:{seed}").sample(rows, round(self.aside * len(rows)))
        kept = {row.id for row in aside}
        members = [row for row in rows if row.id not in kept]
        if min(len(members), len(aside)) < 2:
            raise BadData(
                f"{data.name} gives {len(members)} pairs to train on and {len(aside)} to keep aside.",
                'Pass rows with image and caption (or answers), two of either kind at least; "attributes": '
                '{"member": "reference"} keeps a row aside.',
            )
        return pairs_in(members), pairs_in(aside), drawn

    def _hardened(self, learner: DualWeights, pairs: Pairs, seed: int) -> Tensor:
        """InfoNCE with each picture moved within epsilon to where the loss is large."""
        adversary = Adversary(self.epsilon, CLIMBS, 2.5 * self.epsilon / CLIMBS)

        def raised(texts: Tensor, values: Tensor) -> Tensor:
            images = learner.embed_pixels(replace(pairs.pixels, values=values))
            return contrastive_loss(images, texts, pairs.scale, pairs.true)

        fixed = pairs.texts.detach()
        moved = worst_pixels(
            lambda values: raised(fixed, values), pairs.pixels.values, adversary, seed * self.steps + pairs.step
        )
        return raised(pairs.texts, moved)


def telltales(
    images: Float[Tensor, "pair width"], texts: Float[Tensor, "pair width"], scale: float
) -> Float[Tensor, "pair number"]:
    """Of each pair of a crowd its logit, and the log-probability that the picture finds its text and the text it."""
    logits = scale * images @ texts.T
    found = [logits.log_softmax(dim).diagonal() for dim in (1, 0)]
    return torch.stack([logits.diagonal() / scale, *(one / scale for one in found)], dim=1)


METHOD = AdversarialPrivacy
