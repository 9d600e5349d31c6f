"""What an audit asks, in order: every question of its suites, as often as the plan says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vlmend.audit.desk import Request
from vlmend.audit.plan import Plan
from vlmend.audit.suite import Question, Suite
from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset
from vlmend.data.layouts import read_data
from vlmend.models.judging.sentences import encoder

__all__ = ["Asked", "asked_of", "read"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a suite in one epoch, counted from 0."""

    suite: Suite
    question: Question
    epoch: int
    sampling: Sampling

    def request(self, side: int) -> Request:
        """To a model that reads pictures of so many pixels a side; it is built when its turn comes."""
        return Request(partial(self.question.conversation, side), self.sampling)


def asked_of(suites: Mapping[str, Suite], questions: Mapping[str, Sequence[Question]], plan: Plan) -> list[Asked]:
    """Everything to ask; epoch k draws with the plan's seed + k."""
    return [
        Asked(suites[name], question, epoch, _sampling(suites[name], plan, epoch))
        for name, every in questions.items()
        for question in every
        for epoch in range(plan.epochs)
    ]


def read(data: Dataset | str | None) -> Dataset | None:
    """The user's data, with the sentence encoder at hand for sets that pair requests with captions."""
    return read_data(data, encode=lambda texts: encoder()(texts)) if isinstance(data, str) else data


def _sampling(suite: Suite, plan: Plan, epoch: int) -> Sampling:
    return Sampling(plan.max_new_tokens or suite.max_new_tokens, plan.temperature, plan.seed + epoch)
