"""VILLA: fine-tune while an adversary changes the embeddings of words, or those of the picture, a little.

Gan et al., arXiv 2006.06195 (NeurIPS 2020). For each batch the loss is taken A times: clean, then with a change d of
the embeddings that climbs (`vlmend.training.nudging`), of one modality a step,

    L = 1/A sum over a of [task(d_a) + weight (KL(p0, p_a) + KL(p_a, p0))],   d_1 = 0

with p0 what the model says of the clean batch. Words are changed as they come out of the word embedding, padding never.
Pictures are changed where they enter the linear layer behind what the tower saw (a model that answers), as in the
paper, or behind the patch embedding (a dual encoder), which is ours. With A = 1 it is plain fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatWeights, DualWeights, Kind, Pixels
from vlmend.core.weight_edits import WeightEdit
from vlmend.errors import BadParameter
from vlmend.methods.answering import asked_rows
from vlmend.methods.contrastive import AbstractContrastive, embedded_texts, same
from vlmend.pictures.named import named_pictures
from vlmend.training.batches import chosen, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import IGNORED, contrastive_loss, divergence, reply_loss
from vlmend.training.nudging import Climb, Door, nudged_loss
from vlmend.training.twin import roots_of, twin_of

__all__ = ["METHOD", "Villa", "chat_door", "of_words"]

Modality = Literal["text", "image"]


@dataclass(frozen=True)
class Villa(AbstractContrastive):
    """Fine-tuning under changes of embeddings: of both towers by pairs, or of a decoder by replies to questions.

    Attributes:
        rounds: A, forward passes a step; the first is clean.
        change: What is changed: `text`, `image`, or one of the two in `turns`, from step to step.
        reach: Length of a step of the adversary, as a share of the length of the row's embeddings.
        epsilon: Largest change, likewise; 0 for no bound, as in the authors' code.
        weight: Of the divergence from what the model says of the clean batch.
        direction: `up` the loss, or `random`, the control.
    """

    name: ClassVar[str] = "villa"
    source: ClassVar[str] = "Gan et al., arXiv 2006.06195, NeurIPS 2020"
    works_on: ClassVar[Kind | tuple[Kind, ...]] = ("dual", "chat")
    data: ClassVar[str] = "pictures with their names, or questions about pictures with their answers; training"
    passes: ClassVar[str] = "none; the weights of both towers, or of the decoder's blocks, are replaced"
    changes_text: ClassVar[bool] = True

    rounds: int = 3
    change: Literal["text", "image", "turns"] = "turns"
    reach: float = 0.005
    epsilon: float = 0.0
    weight: float = 1.5
    direction: Literal["up", "random"] = "up"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or self.reach <= 0 or min(self.epsilon, self.weight) < 0:
            raise BadParameter(
                f"rounds={self.rounds}, reach={self.reach:g}, epsilon={self.epsilon:g}, weight={self.weight:g} cannot "
                "be.",
                "rounds is at least 1, reach above 0, epsilon and weight 0 or more.",
            )

    def learn(self, target: DualWeights | ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the first answer counts.

        Raises:
            BadData: There are fewer than two names, or no row has an image and an answer.
            BadParameter: The part to learn, or the one to change, cannot be told.
            ModelProblem: The model joins the pictures of a batch, so that none can be changed by itself.
            MissingExtra: peft is not installed, which adapters need.
        """
        dual = isinstance(target, DualWeights)
        edits = self._dual(target, data, seed) if dual else self._chat(target, data, seed)
        return self.made(cast("Any", target), data, seed, edits, {})

    def nudged(self, step: int) -> Modality:
        """The modality that is changed in a step."""
        if self.change == "turns":
            return "text" if step % 2 else "image"
        return self.change

    @property
    def climb(self) -> Climb:
        """The adversary."""
        return Climb(self.rounds, self.reach, self.epsilon, self.direction == "random")

    def _dual(self, target: DualWeights, data: Dataset, seed: int) -> Sequence[WeightEdit]:
        twin, known = self.twin(target, seed), named_pictures(data)
        learner, scale, texts = target.on(twin.model), float(target.towers.scale), known.texts

        def loss_of(step: int, pixels: Pixels, places: Sequence[int]) -> Tensor:
            words = [texts[known.right[place]] for place in places]
            change, true = self.nudged(step), same(words)
            kept = embedded_texts(learner, words) if change == "image" else learner.embed_pixels(pixels)

            def once() -> tuple[Tensor, Tensor]:
                if change == "image":
                    seen, told = learner.embed_pixels(pixels), kept
                else:
                    seen, told = kept, embedded_texts(learner, words)
                return contrastive_loss(seen, told, scale, true), scale * seen @ told.T

            door = _dual_door(learner, change, words)
            return nudged_loss(once, door, self.climb, _both_ways, self.weight, seed * self.steps + step)

        return self.trained(target, twin, known.images, loss_of, seed).edits

    def _chat(self, target: ChatWeights, data: Dataset, seed: int) -> Sequence[WeightEdit]:
        rows = asked_rows(data)
        twin = twin_of(target, "decoder", self.train, rank=self.rank, seed=seed)

        def loss_of(step: int) -> Tensor:
            inputs, labels = reply_batch(target.reader, chosen(rows, self.batch, f"{self.name}:{seed}:{step}"))

            def once() -> tuple[Tensor, Tensor]:
                kept = labels.shape[1]
                logits = twin.model(**inputs, logits_to_keep=kept + 1, use_cache=False).logits[:, :-1]
                return reply_loss(logits, labels), logits[labels != IGNORED]

            door = chat_door(target, twin.model, self.nudged(step), inputs, labels.shape[1])
            return nudged_loss(once, door, self.climb, divergence, self.weight, seed * self.steps + step)

        train_at_once(twin.parameters, loss_of, LoopSettings(self.steps, self.rate, decay=1e-4))
        return twin.edits


def of_words(tokens: Mapping[str, Tensor]) -> Bool[Tensor, "row token"]:
    """Which tokens are no padding: by the mask; without one, all but repeats of the last token at the end."""
    if "attention_mask" in tokens:
        return tokens["attention_mask"].bool()
    ids = tokens["input_ids"]
    followed = (ids[:, 1:] != ids[:, :-1]).flip(1).cumsum(1).flip(1) > 0
    return torch.cat([torch.ones_like(ids[:, :1]).bool(), followed], dim=1)


def _both_ways(one: Tensor, other: Tensor) -> Tensor:
    """Divergence of logits over texts and over pictures, the mean of both."""
    return (divergence(one, other) + divergence(one.T, other.T)) / 2


def _dual_door(learner: DualWeights, change: Modality, words: Sequence[str]) -> Door:
    """Behind the patch embedding, or behind the word embedding but for padding."""
    towers: Any = learner.towers
    modules = [] if (tower := towers.vision if change == "image" else towers.text) is None else [*tower.modules()]
    patches = [one for one in modules if isinstance(one, nn.Conv2d | nn.Linear)]
    tables = [one for one in modules if isinstance(one, nn.Embedding)]
    if change == "image" and patches:
        return Door(patches[0])
    if change == "text" and tables:
        words_of = max(tables, key=lambda one: one.num_embeddings)
        return Door(words_of, free=of_words(towers.placed(towers.tokens(words, 0)))[..., None])
    raise BadParameter(f"{learner.name} has no {change} embedding that can be told.", "Change the other modality.")


def chat_door(target: ChatWeights, model: Any, change: Modality, inputs: Mapping[str, Tensor], replies: int) -> Door:
    """Before the projector, or behind the word embedding of what is asked: no padding, no picture, no reply."""
    ids = inputs["input_ids"]
    if change == "image":
        (place, *_) = roots_of(target, "projector")
        return Door(model.get_submodule(place), entering=True, rows=len(ids))
    free = inputs["attention_mask"].bool() & (ids != target.anatomy.image_token_id)
    free[:, ids.shape[1] - replies :] = False
    return Door(model.get_input_embeddings(), free=free[..., None])


METHOD = Villa
