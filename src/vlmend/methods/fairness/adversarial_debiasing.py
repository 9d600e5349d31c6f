"""Adversarial debiasing: fine-tune until similarities, or answers, no longer tell an adversary whose picture it is.

Berg et al., AACL 2022 (arXiv 2203.11933). Of each picture of a person an adversary, a small network, reads the cosines
with K neutral texts and guesses the group. It is taught `inner` steps before each step of the towers, and with G
groups the towers lower

    L = InfoNCE + hide * max(0, ln G - cross-entropy of the adversary)

so an adversary that does no better than guessing pushes nothing. Of a model that answers the decoder is tuned on
replies, with their loss in the place of InfoNCE, and the adversary reads how likely each option of each neutral
question is (`methods.answering`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatWeights, DualWeights, Kind
from vlmend.core.weight_edits import WeightEdit
from vlmend.errors import BadParameter
from vlmend.methods.adversary import Guesser, certainty
from vlmend.methods.answering import asked_people, asked_rows
from vlmend.methods.contrastive import Pairs, embedded_texts
from vlmend.methods.grouped import AbstractGrouped, grouped_pictures
from vlmend.training.batches import chosen, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import reply_loss
from vlmend.training.twin import twin_of

__all__ = ["METHOD", "AdversarialDebiasing"]


@dataclass(frozen=True)
class AdversarialDebiasing(AbstractGrouped):
    """Fine-tuning against an adversary that reads the cosines of people with neutral texts, or answers about them.

    Attributes:
        hide: Weight of what the adversary knows; 0 is plain fine-tuning.
        inner: Steps of the adversary before each step of the model.
        crowd: People that it sees at each.
    """

    name: ClassVar[str] = "adversarial_debiasing"
    source: ClassVar[str] = "Berg et al., arXiv 2203.11933, AACL 2022"
    works_on: ClassVar[Kind | tuple[Kind, ...]] = ("dual", "chat")
    data: ClassVar[str] = "pictures with their names and the group of people, or replies and questions; training"
    passes: ClassVar[str] = "none; the weights of both towers, or of the decoder's blocks, are replaced"
    changes_text: ClassVar[bool] = True
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

    def learn(self, target: DualWeights | ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the category is the group.

        The neutral texts of a dual encoder are the names of all people; the neutral questions of a model that answers
        are those of rows with `options`.

        Raises:
            BadData: There are fewer than two names or groups, a group of a single picture, or no row with an image and
                an answer.
            MissingExtra: peft is not installed, which adapters need.
        """
        dual = isinstance(target, DualWeights)
        edits = self._dual(target, data, seed) if dual else self._chat(target, data, seed)
        return self.made(cast("Any", target), data, seed, edits, {})

    def _dual(self, target: DualWeights, data: Dataset, seed: int) -> Sequence[WeightEdit]:
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
            return plain + self.hide * self._known(guesser, scores, [label[place] for place in places])

        return self.tuned(target, twin, held.named, loss, seed).edits

    def _chat(self, target: ChatWeights, data: Dataset, seed: int) -> Sequence[WeightEdit]:
        rows, held = asked_rows(data), asked_people(target, data)
        twin = twin_of(target, "decoder", self.train, rank=self.rank, seed=seed)
        names = sorted(set(held.groups))
        guesser = Guesser(held.width, len(names), seed, normed=False)

        def loss_of(step: int) -> Tensor:
            inputs, labels = reply_batch(target.reader, chosen(rows, self.batch, f"{self.draws}:{seed}:{step}"))
            logits = twin.model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]
            plain = reply_loss(logits, labels)
            if not self.hide:
                return plain
            places = self.people(range(len(held.images)), self.crowd, f"{seed}:{step}")
            scores = held.answers(target.reader, twin.model, places)
            return plain + self.hide * self._known(guesser, scores, [names.index(held.groups[k]) for k in places])

        train_at_once(twin.parameters, loss_of, LoopSettings(self.steps, self.rate, decay=1e-4))
        return twin.edits

    def _known(self, guesser: Guesser, scores: Float[Tensor, "person score"], groups: Sequence[int]) -> Tensor:
        """What the adversary knows, after it has learnt from these people."""
        labels = torch.tensor(groups)
        guesser.learn(scores.detach(), labels, self.inner)
        return certainty(guesser(scores), labels)


METHOD = AdversarialDebiasing
