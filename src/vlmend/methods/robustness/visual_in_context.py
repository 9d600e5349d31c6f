"""Visual in-context learning: what is like the request's picture, told in words with its right answers, comes first.

Zhou et al., arXiv 2402.11574 (Findings of ACL 2024): retrieve pictures by a vision encoder, rank them by how well they
go with what the model says of the request's picture, let the model sum up each in words, and put these summaries with
their labels before the request. Here the model's own states retrieve, and captions are held against captions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import ShowNearest
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import QUESTION, picture_questions, some_objects

__all__ = ["METHOD", "VisualInContext"]

TOKENS = 32
"""Of captions and summaries."""
AT_ONCE = 16


@dataclass(frozen=True)
class VisualInContext(AbstractMethod[ChatStates]):
    """Summaries of the pictures most like the request's, with their answers, before every request with an image.

    Attributes:
        examples: Shown before a request. At 0 requests stay as they are.
        near: Retrieved by states, of which the captions choose those that are shown.
        pool: Pictures to choose from, at most, spread over the data.
        choice: `random`: examples drawn whatever they show, the control of the retrieval.
        labels: `right`, or `random`: each answer drawn from all answers, the control that must not help.
        layer: Block after which states are read, from 0; -1 is the middle one.
        caption: How the model is asked what a picture shows.
        summary: How it is asked for a summary, with {question} and {answer}; empty: the caption is the summary.
        form: How an example stands before the request, with {summary}, {question} and {answer}.
        intent: Words before the first example.
    """

    name: ClassVar[str] = "visual_in_context"
    source: ClassVar[str] = "Zhou et al., arXiv 2402.11574, Findings of ACL 2024"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "one read and one caption of each picture; the prompt is longer by the examples' words"
    data: ClassVar[str] = "questions on pictures with their answers"
    quick: ClassVar[dict[str, Any]] = {"examples": 1, "near": 2}

    examples: int = 4
    near: int = 16
    pool: int = 256
    choice: Literal["likeness", "random"] = "likeness"
    labels: Literal["right", "random"] = "right"
    layer: int = -1
    caption: str = "Describe the image."
    summary: str = 'The answer to "{question}" is "{answer}". Describe in one sentence what in the image shows it.'
    form: str = "An image shows: {summary}\nQuestion: {question}\nAnswer: {answer}\n\n"
    intent: str = ""

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Read the pool: state, caption and summary of each picture.

        Raises:
            BadParameter: Numbers out of range, or words with a place that nothing goes into.
            BadData: The data hold fewer rows that can be shown.
        """
        layer = self._checked(target)
        rows = [row for row in data.examples if row.image is not None and row.answers and row.label != "harmful"]
        if len(rows) < max(self.examples, 1):
            raise BadData(
                f"{data.name} has {len(rows)} rows that can be shown, and examples={self.examples} are asked for.",
                'Give rows with "image" and "answers", or fewer examples.',
            )
        if not self.examples:
            return self.made(target, data, seed, [], {})
        rows = spread(rows, self.pool)
        rng, answers = random.Random(f"visual-in-context:{seed}"), sorted({row.answers[0] for row in rows})
        replies = [row.answers[0] if self.labels == "right" else rng.choice(answers) for row in rows]
        site = Site("language", layer)
        states, captions = self._seen(target.bare, rows, site)
        summaries = self._summaries(target.bare, rows, replies) if self.summary else captions
        told = [
            self.form.format(summary=summary, question=row.prompt or QUESTION, answer=reply)
            for row, summary, reply in zip(rows, summaries, replies, strict=True)
        ]
        digests = [row.image.digest for row in rows if row.image is not None]
        edit = ShowNearest(
            site, states, tuple(captions), tuple(digests), tuple(told), self.caption, self.near, self.examples,
            self.intent, self.choice, seed,
        )  # fmt: skip
        return self.made(target, data, seed, [edit], {})

    def builtin(self) -> Dataset:
        """Validation pictures of objects with their names."""
        return picture_questions("validation")

    def sample_data(self) -> Dataset:
        return some_objects()

    def _checked(self, target: ChatStates) -> int:
        """The block where states are read."""
        if not 0 <= self.examples <= self.near <= self.pool or self.near < 1:
            raise BadParameter(
                f"examples={self.examples}, near={self.near}, pool={self.pool} cannot be.",
                "Show 0 or more of those that are near, and look for these among as many or more.",
            )
        if not -1 <= self.layer < target.layers:
            raise BadParameter(
                f"{target.name} has {target.layers} blocks, and layer={self.layer}.",
                f"Pass 0 to {target.layers - 1}, or -1 for the middle one.",
            )
        try:
            self.summary.format(question="", answer="")
            self.form.format(summary="", question="", answer="")
        except (ValueError, LookupError, AttributeError) as problem:
            raise BadParameter(
                f"summary or form hold a place that nothing goes into ({problem!r}).",
                "summary may hold {question} and {answer}, form {summary}, {question} and {answer}.",
            ) from problem
        return target.layers // 2 if self.layer < 0 else self.layer

    def _seen(
        self, model: ChatStates, rows: Sequence[Example], site: Site
    ) -> tuple[Float[Tensor, "row width"], list[str]]:
        """State and caption of each picture, both in answer to the same words."""
        asked = [Conversation.ask(self.caption, row.image) for row in rows]
        parts = [asked[start : start + AT_ONCE] for start in range(0, len(asked), AT_ONCE)]
        states = torch.cat([model.hidden(part, [site])[site] for part in parts])
        return states, _said(model, asked)

    def _summaries(self, model: ChatStates, rows: Sequence[Example], replies: Sequence[str]) -> list[str]:
        """What the model says of each picture once it is told the answer."""
        asked = [
            Conversation.ask(self.summary.format(question=row.prompt or QUESTION, answer=reply), row.image)
            for row, reply in zip(rows, replies, strict=True)
        ]
        return _said(model, asked)


def _said(model: ChatStates, asked: Sequence[Conversation]) -> list[str]:
    return [reply.text for reply in model.generate(asked, Sampling(TOKENS))]


METHOD = VisualInContext
