"""Inputs made one request at a time, for processors that put more around a text than its placeholders.

Most processors take a batch that mixes requests with and without images. Two kinds do not: those that
write the placeholders of an image in front of every text themselves (BLIP-2), padding included, and
those that refuse a text without an image (PaliGemma). Here each request is processed alone, and the
rows are laid side by side, padded on the left. When to do so is for `reader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from PIL import Image as Pillow
from torch import Tensor

from vlmend.errors import ModelProblem
from vlmend.models.reading.words import Words

__all__ = ["needs_images", "rowwise", "writes_placeholders"]

TOKEN_WISE = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with one entry a token; every other one belongs to the images."""


def writes_placeholders(processor: Any) -> bool:
    """Does it put an image's placeholders in front of the text by itself, whatever the template says?"""
    return getattr(processor, "num_query_tokens", None) is not None


@lru_cache(4)
def needs_images(processor: Any) -> bool:
    """Does it refuse a text without an image?"""
    try:
        processor(text=["a"], return_tensors="pt")
    except ValueError:
        return True
    return False


def rowwise(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Any]], token: int, words: Words
) -> dict[str, Tensor]:
    """Each request through the processor alone, then all in one left-padded batch.

    Args:
        processor: The model's own.
        texts: The rendered requests.
        images: Their images, decoded.
        token: Id of the image placeholder.
        words: How the tokenizer is to take the texts.

    Raises:
        ModelProblem: A request has more images than this processor can place.
    """
    if writes_placeholders(processor) and any(len(shown) > 1 for shown in images):
        raise ModelProblem(
            f"{type(processor).__name__} places one image in front of a request, and one request has more.",
            "Ask about one image at a time.",
        )
    parts = [_one(processor, text, shown, token, words) for text, shown in zip(texts, images, strict=True)]
    return _side_by_side(parts, processor.tokenizer.pad_token_id)


def _one(processor: Any, text: str, images: Sequence[Any], token: int, words: Words) -> dict[str, Tensor]:
    options = words.options([text])
    if images:
        return dict(processor(text=[text], images=[list(images)], return_tensors="pt", **options))
    if not needs_images(processor):
        made = processor(text=[text], return_tensors="pt", **options)
        return {key: made[key] for key in TOKEN_WISE if key in made}
    # as the processor writes a request, the first token behind the placeholders, which are taken out again
    bare = text.removeprefix(words.tokenizer.bos_token) if words.begun(text) else text
    blank = Pillow.new("RGB", (16, 16))
    made = processor(text=[processor.image_token + bare], images=[[blank]], return_tensors="pt", **options)
    told = made["input_ids"][0] != token
    return {key: made[key][:, told] for key in TOKEN_WISE if key in made}


def _side_by_side(parts: Sequence[Mapping[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """Token-wise inputs padded on the left; other ids and masks on the right; the rest in one row."""
    keys = dict.fromkeys(key for part in parts for key in part)
    joined: dict[str, Tensor] = {}
    for key in keys:
        rows = [part[key] for part in parts if key in part]
        if key in TOKEN_WISE or rows[0].ndim == 2:
            rows = _padded(rows, pad if key.endswith("input_ids") else 0, left=key in TOKEN_WISE)
        joined[key] = torch.cat(rows)
    return joined


def _padded(rows: Sequence[Tensor], value: int, left: bool) -> list[Tensor]:
    longest = max(row.shape[1] for row in rows)
    gaps = [longest - row.shape[1] for row in rows]
    return [
        torch.nn.functional.pad(row, (gap, 0) if left else (0, gap), value=value)
        for row, gap in zip(rows, gaps, strict=True)
    ]
