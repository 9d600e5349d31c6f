"""DPO on counterfactual preferences: of two people who differ in their group alone, each is to get their own reply.

Direct preference optimisation, Rafailov et al., NeurIPS 2023 (arXiv 2305.18290). With y the reply to
prefer, z the one to leave, and p_0 the model before:

    loss = -log sigmoid(beta [log p(y) / p_0(y) - log p(z) / p_0(z)]) + anchor * cross-entropy of y's tokens

Rows that share a scene give preferences for nothing: what is right of the one is what is to be left of the other. Rows
of any kind may name the reply to leave. A LoRA adapter on every linear module of the decoder learns (`training.twin`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import people_gallery, profession_of
from vlmend.pictures.pool import phrase, sentence
from vlmend.training.batches import Preference, chosen, preference_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import preference_loss, reply_logprobs, reply_loss
from vlmend.training.twin import Twin, twin_of

__all__ = ["DPO", "METHOD", "preferences"]

PAIR, REJECTED = "of", "rejected"
"""Attributes: what rows of one scene share; the reply that a row is not to get."""
QUESTION = "Describe the person in this picture."
AT_ONCE = 16
"""Preferences a batch while the model before is read."""


@dataclass(frozen=True)
class DPO(AbstractMethod[ChatWeights]):
    """A short preference tuning of a finished model.

    Attributes:
        beta: How hard the model is held to what it was; large is near. At 0 nothing is learnt.
        anchor: Weight of the loss of the preferred replies themselves (Pang et al. 2024, arXiv 2404.19733). DPO as
            published has none (0) and may make both replies unlikely, as long as the wrong one more so.
        steps: Optimiser steps.
        batch: Preferences a step.
        rank: Of the adapter; its alpha is twice the rank.
        rate: Peak learning rate.
    """

    name: ClassVar[str] = "dpo"
    source: ClassVar[str] = "Rafailov et al., arXiv 2305.18290, NeurIPS 2023"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "preferences, or pairs that differ in a person's group alone; training"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rank": 2, "rate": 1e-2}
    changes_text: ClassVar[bool] = True

    beta: float = 0.1
    anchor: float = 1.0
    steps: int = 100
    batch: int = 8
    rank: int = 8
    rate: float = 5e-4

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train the adapter on a twin of the model.

        Raises:
            BadParameter: Numbers out of range.
            BadData: The data hold no preference.
            MissingExtra: peft is not installed.
        """
        if min(self.steps, self.batch, self.rank) < 1 or self.rate <= 0 or min(self.beta, self.anchor) < 0:
            raise BadParameter(
                f"beta={self.beta}, anchor={self.anchor}, steps={self.steps}, batch={self.batch}, rank={self.rank}, "
                f"rate={self.rate} cannot be.",
                "steps, batch and rank are at least 1, rate is above 0, beta and anchor are 0 or more.",
            )
        rows = preferences(data)
        twin = twin_of(target, "decoder", rank=self.rank, seed=seed)
        with torch.no_grad():
            parts = [rows[k : k + AT_ONCE] for k in range(0, len(rows), AT_ONCE)]
            before = torch.cat([_read(twin, target, part)[0] for part in parts])
        known = list(zip(rows, before, strict=True))

        def loss_of_step(step: int) -> Tensor:
            drawn = chosen(known, self.batch, f"dpo:{seed}:{step}")
            leads, surprise = _read(twin, target, [row for row, _ in drawn])
            wanted = preference_loss(leads, torch.stack([lead for _, lead in drawn]), self.beta)
            return wanted + self.anchor * surprise

        train_at_once(twin.parameters, loss_of_step, LoopSettings(steps=self.steps, rate=self.rate))
        return self.made(target, data, seed, twin.edits, {})

    def builtin(self) -> Dataset:
        """Drawn men and women of 20 professions, in training views, in pairs of one tone."""
        seen: Counter[tuple[str, str]] = Counter()
        rows: list[Example] = []
        for row in people_gallery("train").examples:
            who = (profession_of(row), row.group)
            rows.append(_asked(row, f"{who[0]} {seen[who]}"))
            seen[who] += 1
        return Dataset("people-train-pairs", tuple(rows))

    def sample_data(self) -> Dataset:
        rows = (
            Example(
                f"{k}{word}", "who is this?", None, word, noise_image(16, 10 * k + len(word)), answers=(f"a {word}",),
                attributes={PAIR: str(k)},
            )
            for k in range(2)
            for word in ("man", "woman")
        )  # fmt: skip
        return Dataset("few pairs", tuple(rows))


def preferences(data: Dataset) -> list[Preference]:
    """Of each row that names a reply to leave, or that shares its scene and question with one of another group.

    Raises:
        BadData: There is none.
    """
    rows = [row for row in data.examples if row.answers and row.prompt]
    scenes: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for row in rows:
        scenes[row.attributes.get(PAIR) or row.id, row.prompt].append(row)
    found = [
        Preference(row.conversation, row.answers[0], left)
        for held in scenes.values()
        for row in held
        if (left := _left(row, held)) and left not in row.answers
    ]
    if not found:
        raise BadData(
            f"{data.name} holds no preference.",
            'Give rows with a prompt, "answers" (the reply to prefer first), and "attributes": {"rejected": the reply '
            'to leave}; or pairs with the same "of" and prompt, another "category" and other answers.',
        )
    return found


def _left(row: Example, scene: Sequence[Example]) -> str:
    """What a row is not to get: as it says, or what is right of the other group; "" where neither is known."""
    others = {one.answers[0] for one in scene if one.group != row.group}
    return row.attributes.get(REJECTED) or (others.pop() if len(others) == 1 else "")


def _read(twin: Twin, target: ChatWeights, rows: Sequence[Preference]) -> tuple[Float[Tensor, " preference"], Tensor]:
    """How much likelier each reply to prefer is than the one to leave, in logarithms; loss of the former's tokens."""
    inputs, labels = preference_batch(target.reader, rows)
    logits = twin.model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]
    better, worse = reply_logprobs(logits, labels).chunk(2)
    return better - worse, reply_loss(logits[: len(rows)], labels[: len(rows)])


def _asked(row: Example, scene: str) -> Example:
    reply = sentence(phrase(f"{row.group} {profession_of(row)}"))
    return replace(row, prompt=QUESTION, label=None, answers=(reply,), attributes={PAIR: scene})


METHOD = DPO
