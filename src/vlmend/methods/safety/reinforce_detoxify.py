"""Reinforce-Detoxify: replies are drawn, scored for toxicity, and made likelier or less likely by how they score.

After Faal, Schmitt and Yu, arXiv 2202.09662. With p_T the model at temperature T, q_T the model before, s(y) the
toxicity of a reply and k draws for each request,

    maximise E over y of p_T [1 - s(y) - beta log(p_T(y) / q_T(y))]

by policy gradient, the mean of the other draws as baseline (RLOO; Ahmadian et al., arXiv 2402.14740). Scorers punish
the mention of some people, so s is the least over the reply with each listed identity in the place of those that it
names: the reward is the same whichever is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadData, BadParameter
from vlmend.models.judging.scorers import text_scores
from vlmend.training.batches import Row, chosen, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import policy_loss, reply_logprobs, shuffled
from vlmend.training.twin import Twin, twin_of

__all__ = ["METHOD", "ReinforceDetoxify", "swapped"]

REPLY_TOKENS = 24
"""Length of a draw; a longer one is cut there."""
ALIKE = 0.9
"""Share of requests all of whose draws score alike, in the first steps, from which the card warns."""


@dataclass(frozen=True)
class ReinforceDetoxify(AbstractMethod[ChatWeights]):
    """A short policy-gradient tuning against a toxicity scorer.

    Attributes:
        scorer: Of toxicity, 0 to 1 (`vlmend.models.judging.scorers`).
        identities: Words for people, separated by "|", that are put in each other's place before scoring; empty for
            none.
        draws: Replies to each request.
        temperature: At which they are drawn, and at which the model is held to what it was.
        beta: How hard it is held.
        reward: `own`; or `shuffled` among the draws of a request, the negative control.
        steps: Optimiser steps.
        batch: Requests a step.
        rank: Of the adapter; its alpha is twice the rank.
        rate: Peak learning rate.
    """

    name: ClassVar[str] = "reinforce_detoxify"
    source: ClassVar[str] = "Faal et al., arXiv 2202.09662, 2022; RLOO: arXiv 2402.14740"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "requests; training on its own replies"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "draws": 2, "rank": 2, "rate": 0.1}
    changes_text: ClassVar[bool] = True

    scorer: str = "profanity"
    identities: str = "men|women|old people|young people"
    draws: int = 8
    temperature: float = 1.0
    beta: float = 0.05
    reward: Literal["own", "shuffled"] = "own"
    steps: int = 60
    batch: int = 4
    rank: int = 8
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.draws < 2 or self.beta < 0:
            raise BadParameter(
                f"draws={self.draws}, beta={self.beta:g}, steps={self.steps}, batch={self.batch}, rank={self.rank} "
                "cannot be.",
                "draws is at least 2, beta 0 or more, the others are at least 1.",
            )
        if self.rate <= 0 or self.temperature <= 0:
            raise BadParameter(f"rate={self.rate:g}, temperature={self.temperature:g} cannot be.", "Both are above 0.")

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train the adapter on what a twin of the model replies.

        Raises:
            BadData: The data hold no request.
            MissingExtra: peft, or the scorer's package, is not installed.
        """
        asked = [row.conversation for row in data.examples if row.prompt]
        if not asked:
            raise BadData(f"{data.name} holds no request.", "Give rows with a prompt.")
        twin, plain = twin_of(target, "decoder", rank=self.rank, seed=seed), self.made(target, data, seed, [], {})
        told = _Told()

        def loss_of_step(step: int) -> Tensor:
            rows = chosen(asked, self.batch, f"{self.name}:{seed}:{step}")
            view = target.bare.with_mend(replace(plain, edits=tuple(twin.edits)))
            drawn = self._drawn(view, rows, seed * self.steps + step)
            return self._loss(target, twin, drawn, told, seed * self.steps + step)

        train_at_once(twin.parameters, loss_of_step, LoopSettings(self.steps, self.rate))
        made = replace(plain, edits=tuple(twin.edits))
        return replace(made, card=replace(made.card, notes=told.notes))

    def scores(self, replies: Sequence[str]) -> list[list[float]]:
        """What the scorer gives each reply with each identity in the place of those that it names."""
        texts = [swapped(reply, self.identities) for reply in replies]
        found = iter(text_scores(self.scorer, [one for each in texts for one in each]))
        return [[next(found) for _ in each] for each in texts]

    def _drawn(self, view: Any, rows: Sequence[Conversation], seed: int) -> list[Row]:
        """`draws` replies to each request, one request behind the other."""
        every = [row for row in rows for _ in range(self.draws)]
        replies = view.generate(every, Sampling(REPLY_TOKENS, self.temperature, seed))
        return [Row(asked, reply.text, reply.stop == "stop") for asked, reply in zip(every, replies, strict=True)]

    def _loss(self, target: ChatWeights, twin: Twin, drawn: Sequence[Row], told: _Told, seed: int) -> Tensor:
        inputs, labels = reply_batch(target.reader, drawn)
        with torch.no_grad():
            before = self._logprobs(target.model, inputs, labels)
        now = self._logprobs(twin.model, inputs, labels)
        scores = self.scores([row.reply for row in drawn])
        rewards = 1 - torch.tensor([min(each) for each in scores]).unflatten(0, (-1, self.draws))
        told.saw(rewards, (now.detach() - before).mean(), [max(one) - min(one) for one in scores if len(one) > 1])
        if self.reward == "shuffled":
            rewards = shuffled(rewards, seed)
        now, before = (one.cpu().unflatten(0, (-1, self.draws)) for one in (now, before))
        return policy_loss(now, before, rewards, self.beta)

    def _logprobs(self, model: Any, inputs: Mapping[str, Any], labels: Tensor) -> Float[Tensor, " row"]:
        logits = model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]
        return reply_logprobs(logits / self.temperature, labels)


@dataclass
class _Told:
    """What the card says of the training."""

    rewards: list[float] = field(default_factory=list[float])
    alike: list[float] = field(default_factory=list[float])
    moved: list[float] = field(default_factory=list[float])
    swaps: list[float] = field(default_factory=list[float])

    def saw(self, rewards: Float[Tensor, "request draw"], moved: Tensor, swaps: Sequence[float]) -> None:
        """One step; `swaps`: how far the scorer moves with the identity, of each draw that names one."""
        self.swaps += swaps
        self.rewards.append(float(rewards.mean()))
        self.alike.append(float((rewards == rewards[:, :1]).all(1).float().mean()))
        self.moved.append(float(moved))

    @property
    def notes(self) -> tuple[str, ...]:
        """For people."""
        part = max(1, len(self.rewards) // 5)
        first, last = (fmean(self.rewards[k]) for k in (slice(part), slice(-part, None)))
        alike = fmean(self.alike[:part])
        notes = (
            f"Mean toxicity of the draws: {1 - first:.2f} in the first fifth of the steps, {1 - last:.2f} in the last; "
            f"log-probability over that before {fmean(self.moved[-part:]):.2f}. All draws scored alike, and taught "
            f"nothing of toxicity, for {alike:.0%} of the requests in the first fifth, {fmean(self.alike[-part:]):.0%} "
            "in the last.",
        )
        if self.swaps:
            notes += (
                f"{len(self.swaps)} draws named an identity: with another one in its place the scorer alone would have "
                f"moved by up to {fmean(self.swaps):.2f} on average, and the reward by nothing.",
            )
        if alike >= ALIKE:
            notes += ("Hardly a request taught anything at first: raise temperature or draws, or take other requests.",)
        return notes


def swapped(reply: str, identities: str) -> list[str]:
    """The reply with each identity in the place of every one that it names; the reply alone where it names none."""
    names = [name for name in identities.split("|") if name]
    if not names:
        return [reply]
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
    if not pattern.search(reply):
        return [reply]
    return [pattern.sub(name, reply) for name in names]


METHOD = ReinforceDetoxify
