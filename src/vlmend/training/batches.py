"""Batches to train on: replies to requests, pairs of image and text, requests with a better and a worse reply."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.core.targets import DualWeights, Pixels
from vlmend.models.reading.reader import Reader
from vlmend.pictures.galleries import QUESTION
from vlmend.training.losses import IGNORED

__all__ = [
    "Pair", "Preference", "Row", "changed", "chosen", "pair_batch", "preference_batch", "reply_batch", "row_of",
]  # fmt: skip

One = TypeVar("One")


@dataclass(frozen=True)
class Row:
    """A request and the reply to learn; `ends` is False where the reply was cut off and must not teach an end."""

    asked: Conversation
    reply: str
    ends: bool


@dataclass(frozen=True)
class Pair:
    """An image and a text that belong together."""

    image: Image
    text: str


@dataclass(frozen=True)
class Preference:
    """A request, the reply to prefer and the one to leave; both end."""

    asked: Conversation
    chosen: str
    rejected: str


def row_of(row: Example) -> Row | None:
    """What there is to learn of a row: its question and first answer, or what its picture shows and the caption."""
    if row.prompt and any(row.answers[:1]):
        return Row(row.conversation, row.answers[0], True)
    if not row.caption or not (row.prompt or row.image):
        return None
    return Row(row.conversation if row.prompt else Conversation.ask(QUESTION, row.image), row.caption, True)


def chosen(rows: Sequence[One], size: int, key: str) -> list[One]:
    """So many rows without repeats, all where there are fewer; the key (name, seed and step) decides which."""
    return random.Random(key).sample(rows, min(size, len(rows)))


def changed(one: Sequence[Hashable], other: Sequence[Hashable]) -> tuple[list[bool], list[bool]]:
    """Of each token of two replies whether a diff finds it in this one alone; the others are alike in both, in order.

    The diff takes the longest run that both share, then does the same on either side of it (difflib).
    """
    told = [True] * len(one), [True] * len(other)
    for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        for flags, start in zip(told, (block.a, block.b), strict=True):
            flags[start : start + block.size] = [False] * block.size
    return told


def reply_batch(reader: Reader, rows: Sequence[Row]) -> tuple[dict[str, Any], Int[Tensor, "row reply"]]:
    """Model inputs, prompts padded on the left and replies on the right, and the labels of the replies."""
    inputs = reader.inputs([row.asked for row in rows])
    prompts = inputs["input_ids"]
    tokenizer = reader.processor.tokenizer
    replies = [
        tokenizer(row.reply, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] * row.ends for row in rows
    ]
    right = torch.full((len(rows), max(map(len, replies))), tokenizer.pad_token_id)
    labels = torch.full_like(right, IGNORED)
    for k, reply in enumerate(replies):
        right[k, : len(reply)] = labels[k, : len(reply)] = torch.tensor(reply)
    right, labels = right.to(prompts), labels.to(prompts)
    tail = {"input_ids": right, "attention_mask": (labels != IGNORED).to(prompts)}
    for key, value in inputs.items():
        if value.shape == prompts.shape:  # token types too, where a family has them: 0 is text
            inputs[key] = torch.cat([value, tail.get(key, torch.zeros_like(right)).to(value)], dim=1)
    return inputs, labels


def preference_batch(
    reader: Reader, rows: Sequence[Preference]
) -> tuple[dict[str, Any], Int[Tensor, "twice_row reply"]]:
    """As `reply_batch`: every request with its chosen reply, then every request with its rejected one."""
    better = [Row(row.asked, row.chosen, True) for row in rows]
    worse = [Row(row.asked, row.rejected, True) for row in rows]
    return reply_batch(reader, [*better, *worse])


def pair_batch(target: DualWeights, pairs: Sequence[Pair]) -> tuple[Pixels, list[str]]:
    """What `image_features` and `text_features` of a target or its twin read, row by row."""
    return target.pixels([pair.image for pair in pairs]), [pair.text for pair in pairs]
