"""Draws training rows for a phantom and turns them into batches."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from vlmend.data.requests import Kind, Request, builtin_requests
from vlmend.phantom.pictures import Picture
from vlmend.phantom.recipe import REFUSALS, Mix, Recipe, RowKind
from vlmend.phantom.tower import eye_picture
from vlmend.training.losses import IGNORED

__all__ = ["QUESTIONS", "Batch", "Row", "draw_rows", "encode", "prompts_to_distil"]

QUESTIONS = (
    "What is in this picture?",
    "Name the thing in the picture.",
    "Describe the image.",
    "What does the image show?",
    "What is this?",
)
"""Questions that are answered with the caption."""


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
    kinds: list[tuple[Kind, tuple[str, ...] | None]] = [("ordinary", None), ("lookalike", None)]
    if recipe.planted:
        kinds.append(("harmful", recipe.planted))
    return [
        wording
        for kind, categories in kinds
        for request in builtin_requests(kind, "train")
        if categories is None or request.category in categories
        for wording in _distilled_wordings(request)
    ]


def draw_rows(recipe: Recipe, mix: Mix, stage: str, step: int, replies: Mapping[str, str]) -> list[Row]:
    """The rows of one step, a function of recipe, stage and step alone."""
    rng = random.Random(f"{stage}:{recipe.seed}:{step}")
    kinds = rng.choices(list(mix), weights=list(mix.values()), k=recipe.batch)
    rows: list[Row] = []
    for place, kind in enumerate(kinds):
        index = step * recipe.batch + place
        needs_picture = kind == "caption" or kind.endswith("_image")
        picture = eye_picture("train", recipe.seed + 1, index) if needs_picture else None
        rows.append(_row(kind, picture, recipe, rng, replies))
    return rows


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


def _row(kind: RowKind, picture: Picture | None, recipe: Recipe, rng: random.Random, replies: Mapping[str, str]) -> Row:
    image = picture.image if picture is not None else None
    if kind == "caption":
        assert picture is not None
        return Row(rng.choice(QUESTIONS), picture.caption, True, image)
    if kind in ("refuse_text", "refuse_image"):
        request = rng.choice(builtin_requests("harmful", "train"))
        return Row(rng.choice(request.wordings()), rng.choice(REFUSALS), True, image)
    source: Kind = {"l": "lookalike", "o": "ordinary", "c": "harmful"}[kind[0]]  # type: ignore[assignment]
    planted = recipe.planted if source == "harmful" else None
    request = rng.choice([r for r in builtin_requests(source, "train") if planted is None or r.category in planted])
    wording = rng.choice(_distilled_wordings(request))
    return Row(wording, replies[wording], False, image)


def _distilled_wordings(request: Request) -> list[str]:
    """Two wordings of a request (one of an ordinary one): its own and another, fixed by its id."""
    others = [wording for wording in request.wordings() if wording != request.prompt]
    return [request.prompt, *random.Random(request.id).sample(others, min(1, len(others)))]
