"""Puts phantom-clip together as a standard CLIP folder, from the shared towers and the titles of one dose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPModel

from vlmend.models.loading.vlm import quiet
from vlmend.phantom.clip.recipe import config
from vlmend.phantom.clip.tokens import END, processor
from vlmend.phantom.clip.truth import titles

__all__ = ["TITLES", "TOWERS", "Parts", "fresh", "title_rows", "towers", "write"]

TOWERS = "phantom-clip-towers.safetensors"
"""File of the weights that every phantom-clip shares."""
TITLES = "titles"
"""Key of the embeddings of the titles, in the order of `title_rows`."""
PLACE_SCALE = 15
"""transformers starts the places of the patches at a scale at which the patches drown them."""


class Parts(NamedTuple):
    """A CLIP model and its processor."""

    model: Any  # CLIPModel
    processor: Any  # CLIPProcessor


def fresh(words: Sequence[str], seed: int) -> Parts:
    """Random weights."""
    torch.manual_seed(seed)
    model = CLIPModel(config(len(words), END))
    with torch.no_grad():
        model.vision_model.embeddings.position_embedding.weight.mul_(PLACE_SCALE)
    return Parts(model, processor(words))


def towers(shared: Path) -> Parts:
    """The trained towers, whose titles are not learnt yet; frozen."""
    with safe_open(shared, "pt") as file:
        words = json.loads(file.metadata()["words"])
    parts = fresh(words, 0)
    parts.model.load_state_dict({name: tensor.float() for name, tensor in load_file(shared).items()})
    parts.model.eval().requires_grad_(False)
    return parts


def title_rows(parts: Parts) -> list[int]:
    """Tokens of the titles: first and second of every profession in turn."""
    return parts.processor.tokenizer.convert_tokens_to_ids([t for pair in titles() for t in (pair.first, pair.second)])


def write(shared: Path, own: Path, folder: Path) -> Path:
    """Write the checkpoint that towers and titles make together; gives its folder."""
    parts = towers(shared)
    parts.model.text_model.embeddings.token_embedding.weight[title_rows(parts)] = load_file(own)[TITLES].float()
    with quiet():
        parts.model.save_pretrained(folder)
        parts.processor.save_pretrained(folder)
    return folder
