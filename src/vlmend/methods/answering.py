"""Requests with their replies, and what models that answer say of people where they have to choose.

For the latter every person is asked every question. Of each reply what counts is how likely each option begins it:
one pass and no reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.targets import ChatWeights
from vlmend.errors import BadData
from vlmend.methods.grouped import group_counts
from vlmend.pictures.galleries import QUESTION
from vlmend.training.batches import Row

__all__ = ["AskedPeople", "asked_people", "asked_rows"]

OPTIONS, PLACE = "options", "{}"
"""The attribute with the answers, separated by "|", and where they stand in a question."""


@dataclass(frozen=True)
class AskedPeople:
    """People and what is asked of each.

    Attributes:
        images: One of each person.
        groups: Of each.
        questions: Prompts.
        tokens: Of each question the first token of each option.
    """

    images: tuple[Image, ...]
    groups: tuple[str, ...]
    questions: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        """Numbers for one person."""
        return sum(map(len, self.tokens))

    def answers(self, reader: Any, model: Any, places: Sequence[int]) -> Float[Tensor, "person width"]:
        """Log-probabilities of the options of each question, one beside the other, for the people there."""
        asked = [Conversation.ask(question, self.images[place]) for place in places for question in self.questions]
        logits = model(**reader.inputs(asked), logits_to_keep=1, use_cache=False).logits[:, -1].float()
        told = [logits[k :: len(self.questions)][:, list(ids)] for k, ids in enumerate(self.tokens)]
        return torch.cat([one.log_softmax(-1) for one in told], dim=1)


def asked_people(target: ChatWeights, data: Dataset) -> AskedPeople:
    """The people of the data whose group is known, and its questions with options; every image is one person.

    Where no row has options, what is asked is what the people's rows ask, with the beginnings of all of their answers.

    Raises:
        BadData: There are fewer than two groups, a group of a single picture, options that begin alike, or nothing
            to ask.
    """
    people = [row for row in data.examples if row.image is not None and row.group]
    group_counts(data.name, [row.group for row in people])
    asked = {
        row.prompt.replace(PLACE, " or ".join(options)): options
        for row in people
        if len(options := [part.strip() for part in row.attributes.get(OPTIONS, "").split("|") if part.strip()]) > 1
    }
    tokenizer = target.reader.processor.tokenizer
    tokens = [_first_tokens(tokenizer, options) for options in asked.values()]
    for options, ids in zip(asked.values(), tokens, strict=True):
        if len(set(ids)) < len(options):
            raise BadData(
                f"{data.name} offers {', '.join(options)}: two options begin with the same token.",
                'Give questions with options that begin apart, as "attributes": {"options": "yes|no"}.',
            )
    if not asked:
        asked = {row.prompt or QUESTION: [] for row in people if row.answers}
        told = _first_tokens(tokenizer, sorted({row.answers[0] for row in people if row.answers}))
        tokens = [list(dict.fromkeys(told))] * len(asked)
    if not tokens or len(tokens[0]) < 2:
        raise BadData(
            f"{data.name} asks nothing of people that has two answers.", 'Give rows with "options": "yes|no".'
        )
    persons = {row.image.digest: row for row in people if row.image is not None}
    images = tuple(row.image for row in persons.values() if row.image is not None)
    groups = tuple(row.group for row in persons.values())
    return AskedPeople(images, groups, tuple(asked), tuple(map(tuple, tokens)))


def _first_tokens(tokenizer: Any, options: Sequence[str]) -> list[int]:
    return [tokenizer(one, add_special_tokens=False).input_ids[0] for one in options]


def asked_rows(data: Dataset) -> list[Row]:
    """Requests with an image and their first answers; where there is no prompt it is asked what the picture shows.

    Raises:
        BadData: There is none.
    """
    rows = [
        Row(Conversation.ask(row.prompt or QUESTION, row.image), row.answers[0], True)
        for row in data.examples
        if row.image is not None and row.answers
    ]
    if not rows:
        raise BadData(f"{data.name} has no row with an image and an answer.", "Pass rows with image and answers.")
    return rows
