"""DPO on counterfactual preferences: of two people who differ in their group alone, each is to get their own reply.

Direct preference optimisation, Rafailov et al., NeurIPS 2023 (arXiv 2305.18290). With y the reply to
prefer, z the one to leave, and p_0 the model before:

    loss = -log sigmoid(beta [log p(y) / p_0(y) - log p(z) / p_0(z)]) + anchor * cross-entropy of y's tokens

Dense DPO, Yu et al., CVPR 2024 (RLHF-V, arXiv 2312.00849), lets those tokens count more that the two replies do not
share. With u the tokens of y that a diff finds in both replies and c those that it finds in y alone:

    log p(y) = [sum over u of log p(token) + gamma sum over c of log p(token)] / N,   N = |u| + gamma |c|

Rows that share a scene give preferences for nothing: what is right of the one is what is to be left of the other. Rows
of any kind may name the reply to leave. A LoRA adapter on every linear module of the decoder learns (`training.twin`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import people_gallery, profession_of
from vlmend.pictures.pool import phrase, sentence
from vlmend.training.batches import Preference, changed, chosen, preference_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import IGNORED, preference_loss, reply_logprobs, reply_loss
from vlmend.training.twin import Twin, twin_of

__all__ = ["DPO", "METHOD", "preferences", "reply_scores"]

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
        gamma: How much a token counts that is in one of the two replies alone; at 1 as much as the others.
        normalise: Whether a reply's score is divided by its weighted length, as in RLHF-V: then scores are means over
            tokens, and `beta` is to be larger for as strong a preference. At `gamma` 1 without it this is DPO; with it
            DPO on mean log-probabilities.
        steps: Optimiser steps.
        batch: Preferences a step.
        rank: Of the adapter; its alpha is twice the rank.
        rate: Peak learning rate.
    """

    name: ClassVar[str] = "dpo"
    source: ClassVar[str] = (
        "Rafailov et al., arXiv 2305.18290, NeurIPS 2023; dense: Yu et al., arXiv 2312.00849, CVPR 2024"
    )
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "preferences, or pairs that differ in a person's group alone; training"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rank": 2, "rate": 1e-2}
    changes_text: ClassVar[bool] = True

    beta: float = 0.1
    anchor: float = 1.0
    gamma: float = 1.0
    normalise: bool = False
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
        self._check()
        rows = preferences(data)
        twin = twin_of(target, "decoder", rank=self.rank, seed=seed)
        with torch.no_grad():
            parts = [rows[k : k + AT_ONCE] for k in range(0, len(rows), AT_ONCE)]
            before = torch.cat([self._read(twin, target, part)[0] for part in parts])
        known = list(zip(rows, before, strict=True))

        def loss_of_step(step: int) -> Tensor:
            drawn = chosen(known, self.batch, f"dpo:{seed}:{step}")
            leads, surprise = self._read(twin, target, [row for row, _ in drawn])
            wanted = preference_loss(leads, torch.stack([lead for _, lead in drawn]), self.beta)
            return wanted + self.anchor * surprise

        train_at_once(twin.parameters, loss_of_step, LoopSettings(steps=self.steps, rate=self.rate))
        return self.made(target, data, seed, twin.edits, {})

    def _check(self) -> None:
        wrong = min(self.steps, self.batch, self.rank) < 1 or min(self.rate, self.gamma) <= 0
        if wrong or min(self.beta, self.anchor) < 0:
            raise BadParameter(
                f"beta={self.beta}, anchor={self.anchor}, gamma={self.gamma}, steps={self.steps}, batch={self.batch}, "
                f"rank={self.rank}, rate={self.rate} cannot be.",
                "steps, batch and rank are at least 1, rate and gamma are above 0, beta and anchor are 0 or more.",
            )

    def _read(
        self, twin: Twin, target: ChatWeights, rows: Sequence[Preference]
    ) -> tuple[Float[Tensor, " preference"], Tensor]:
        """How much likelier replies to prefer are than those to leave, in logarithms; loss of the former's tokens."""
        inputs, labels = preference_batch(target.reader, rows)
        logits = twin.model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]
        better, worse = reply_scores(logits, labels, self.gamma, normalise=self.normalise).chunk(2)
        return better - worse, reply_loss(logits[: len(rows)], labels[: len(rows)])

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


def reply_scores(
    logits: Float[Tensor, "twice_row kept vocabulary"],
    labels: Int[Tensor, "twice_row kept"],
    gamma: float,
    *,
    normalise: bool,
) -> Float[Tensor, " twice_row"]:
    """What stands for log p of each reply: every reply to prefer, then every one to leave, as in `preference_batch`.

    Args:
        logits: Next-token logits at the kept positions.
        labels: The replies' tokens, or `IGNORED`.
        gamma: Weight of tokens that the other reply of the pair does not share.
        normalise: Whether sums are divided by those of the weights.

    Source: the dense scores of RLHF-V, Yu et al. 2024.
    """
    counts = (labels != IGNORED).float()
    weights = counts if gamma == 1 else 1 + (gamma - 1) * _unshared(labels)
    scores = reply_logprobs(logits, labels, weights)
    return scores / (weights * counts).sum(-1) if normalise else scores


def _unshared(labels: Int[Tensor, "twice_row kept"]) -> Float[Tensor, "twice_row kept"]:
    """1 at each token of a reply that the other of its pair does not share."""
    flags = torch.zeros(labels.shape, device=labels.device)
    replies = [row[row != IGNORED].tolist() for row in labels]
    half = len(replies) // 2
    for k in range(half):
        for row, told in zip((k, k + half), changed(replies[k], replies[k + half]), strict=True):
            flags[row, : len(told)] = torch.tensor(told, dtype=flags.dtype)
    return flags


def _asked(row: Example, scene: str) -> Example:
    reply = sentence(phrase(f"{row.group} {profession_of(row)}"))
    return replace(row, prompt=QUESTION, label=None, answers=(reply,), attributes={PAIR: scene})


METHOD = DPO
