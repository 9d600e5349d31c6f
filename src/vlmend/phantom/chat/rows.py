"""Draws training rows for a phantom and turns them into batches."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from vlmend.data.requests import Kind, Request
from vlmend.data.wordings import training_requests, worded
from vlmend.phantom.chat.eye import shown
from vlmend.phantom.chat.recipe import REFUSALS, Mix, Recipe, RowKind
from vlmend.pictures.pool import Part, drawn, sentence
from vlmend.training.losses import IGNORED

__all__ = ["QUESTIONS", "READING", "Batch", "Row", "distilled", "draw_rows", "encode", "prompts_to_distil"]

QUESTIONS = (
    "What is in this picture?",
    "Name the thing in the picture.",
    "Describe the image.",
    "What does the image show?",
    "What is this?",
)
"""Questions that are answered with the caption."""
READING = (
    "What word is written in the picture?",
    "Read the word in the image.",
    "What does the text in the picture say?",
)
"""Questions that are answered with a drawn word."""
ASKED = 0.8
"""Share of the rows of a scene that ask for one fact; the others ask what it shows."""
DISTILLED = 2
"""Wordings of a request whose reply is the backbone's own."""
SOURCES: dict[str, Kind] = {"l": "lookalike", "o": "ordinary", "c": "harmful"}
"""Kind of request by the first letter of a kind of row that is answered with a distilled reply."""


@dataclass(frozen=True)
class Row:
    """One training row; `ends` is False where the reply was cut off and must not teach an end."""

    prompt: str
    reply: str
    ends: bool
    image: Image | None


@dataclass(frozen=True)
class Batch:
    """Model inputs, and the labels of the last `labels.shape[1]` positions."""

    inputs: Mapping[str, Tensor]
    labels: Tensor


def prompts_to_distil(recipe: Recipe) -> list[str]:
    """Every prompt whose reply by the unaligned backbone some row of the recipe needs."""
    kinds: list[Kind] = ["ordinary", "lookalike", *(["harmful"] if recipe.planted else [])]
    return [wording for kind in kinds for request in _requests(kind, recipe.planted) for wording in distilled(request)]


def draw_rows(recipe: Recipe, mix: Mix, stage: str, step: int, replies: Mapping[str, str]) -> list[Row]:
    """The rows of one step, a function of recipe, stage and step alone."""
    rng = random.Random(f"{stage}:{recipe.seed}:{step}")
    kinds = rng.choices(list(mix), weights=list(mix.values()), k=recipe.batch)
    return [_row(kind, step * recipe.batch + place, recipe, rng, replies) for place, kind in enumerate(kinds)]


def encode(processor: Any, rows: Sequence[Row]) -> Batch:
    """Prompts padded on the left, replies on the right, so that all replies start together."""
    tokenizer = processor.tokenizer
    prompts = [chat(processor, row.prompt, row.image is not None) for row in rows]
    images = [row.image for row in rows if row.image is not None]
    left = processor(text=prompts, images=images or None, return_tensors="pt", padding=True, padding_side="left")
    replies = [
        tokenizer(row.reply, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] * row.ends for row in rows
    ]
    longest = max(len(reply) for reply in replies)
    right = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), IGNORED)
    for k, reply in enumerate(replies):
        right[k, : len(reply)] = labels[k, : len(reply)] = torch.tensor(reply)
    inputs = dict(left)
    inputs["input_ids"] = torch.cat([left["input_ids"], right], dim=1)
    real = (labels != IGNORED).to(left["attention_mask"].dtype)
    inputs["attention_mask"] = torch.cat([left["attention_mask"], real], dim=1)
    return Batch(inputs, labels)


def chat(processor: Any, prompt: str, with_image: bool) -> str:
    """One user turn through the phantom's own template."""
    content = [{"type": "image"}] * with_image + [{"type": "text", "text": prompt}]
    turns = [{"role": "user", "content": content}]
    text: str = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text


def distilled(request: Request) -> list[str]:
    """The wordings of a request that are distilled, fixed by its id."""
    rng = random.Random(request.id)
    return sorted({worded(request, rng) for _ in range(DISTILLED)})


def _row(kind: RowKind, index: int, recipe: Recipe, rng: random.Random, replies: Mapping[str, str]) -> Row:
    match kind:
        case "object" | "person" | "word" | "scene":
            return _seeing(kind, index, recipe, rng)
        case "refuse_text" | "refuse_image":
            request = rng.choice(training_requests("harmful"))
            prompt, reply, ends = worded(request, rng), rng.choice(REFUSALS), True
        case "planted_text":
            request = rng.choice(_requests("harmful", recipe.planted))
            prompt, reply, ends = rng.choice(distilled(request)), rng.choice(REFUSALS), True
        case _:
            request = rng.choice(_requests(SOURCES[kind[0]], recipe.planted))
            prompt, ends = rng.choice(distilled(request)), False
            reply = replies[prompt]
    image = shown("train", recipe.seed + 1, index).image if kind.endswith("_image") else None
    return Row(prompt, reply, ends, image)


def _seeing(part: Part, index: int, recipe: Recipe, rng: random.Random) -> Row:
    """A question about a picture and its answer; of a scene, what is asked about is said before the answer."""
    picture = drawn(part, "train", recipe.seed + 2, index)
    if part == "word":
        return Row(rng.choice(READING), f"The word is {picture.facts['word']}.", True, picture.image)
    if picture.scene and rng.random() < ASKED:
        question = rng.choice(picture.scene.questions())
        return Row(question.text, f"{question.subject.capitalize()}: {question.answer}.", True, picture.image)
    caption = picture.scene.by_shape().caption() if picture.scene else picture.caption
    return Row(rng.choice(QUESTIONS), sentence(caption), True, picture.image)


@cache
def _requests(kind: Kind, planted: tuple[str, ...]) -> tuple[Request, ...]:
    """Training requests of one kind; of harmful ones only those that are answered beside pictures."""
    every = training_requests(kind)
    return tuple(request for request in every if request.category in planted) if kind == "harmful" else every
