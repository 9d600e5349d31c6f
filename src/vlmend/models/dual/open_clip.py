"""Dual encoders of open_clip (extra `openclip`): the one place that imports it.

Only folders with safetensors weights are read. open_clip needs a torchvision whose compiled part fits the
installed torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from vlmend.errors import MissingExtra, ModelProblem
from vlmend.models.dual.towers import Features, Inputs, Towers
from vlmend.models.identity import digest_of

__all__ = ["OPEN_CLIP_CONFIG", "open_clip_towers"]

OPEN_CLIP_CONFIG = "open_clip_config.json"
SAMPLE = ("A photo of a cat, 2 dogs & a naïve fox!", "unbelievable " * 60)
"""Texts that tell two tokenizers apart: case, digits, signs, accents, rare words, and where they are cut."""


def open_clip_towers(folder: Path, device: str, dtype: str) -> Towers:
    """The towers of an open_clip checkpoint.

    Args:
        folder: With `open_clip_config.json`, weights as safetensors, and the tokenizer's files where the config
            names a tokenizer of transformers.
        device: `cuda`, `cpu`, ...
        dtype: Of the weights; `auto` is float32, as open_clip stores them.

    Raises:
        MissingExtra: open_clip is not installed, or cannot be imported.
        ModelProblem: There are no safetensors.
    """
    open_clip = _open_clip()
    if not list(folder.glob("*.safetensors")):
        raise ModelProblem(
            f"{folder} has no .safetensors weights.", "Pickled weights can run code; convert them to safetensors."
        )
    source = f"local-dir:{folder}"
    model, picture = open_clip.create_model_from_pretrained(source, device=device)
    return _towers(model, picture, open_clip.get_tokenizer(source), "float32" if dtype == "auto" else dtype)


def _towers(model: Any, picture: Any, tokenizer: Any, dtype: str) -> Towers:
    model.to(getattr(torch, dtype)).eval().requires_grad_(False)
    bias: Tensor | None = model.logit_bias
    parts: dict[str, nn.Module] = dict(model.named_children())
    side: int | tuple[int, int] = model.visual.image_size

    def pixels(image: PIL.Image.Image) -> Inputs:
        return {"pixel_values": picture(image)[None]}

    def tokens(texts: Sequence[str], free: int) -> Inputs:
        if free:
            raise ModelProblem(
                "Learnt tokens have no place in the text tower of open_clip.",
                "Export the checkpoint to transformers, and load that.",
            )
        return {"input_ids": tokenizer(list(texts))}

    return Towers(
        model,
        picture=pixels, tokens=tokens,
        features=_features,
        vision=parts["visual"], text=parts.get("text", parts.get("transformer")),
        kind="softmax" if bias is None else "sigmoid",
        scale=model.logit_scale.float().exp().item(), bias=0.0 if bias is None else bias.float().item(),
        short_side=side if isinstance(side, int) else min(side),
        parts=lambda: {"processor": digest_of(repr(picture)), "tokenizer": digest_of(_held(tokenizer))},
    )  # fmt: skip


def _features(model: Any) -> tuple[Features, Features]:
    return (
        lambda inputs: model.encode_image(inputs["pixel_values"]),
        lambda inputs: model.encode_text(inputs["input_ids"]),
    )


def _held(tokenizer: Any) -> dict[str, Any]:
    """What decides which tokens a text becomes: some typical words stand for its rules."""
    return {"class": type(tokenizer).__name__, "sample": tokenizer(list(SAMPLE)).tolist()}


def _open_clip() -> Any:
    try:
        return importlib.import_module("open_clip")
    except ModuleNotFoundError as problem:
        raise MissingExtra(
            f"This is an open_clip model, and {problem.name} is not installed.", "Run: pip install 'vlmend[openclip]'"
        ) from problem
    except (ImportError, RuntimeError) as problem:
        raise MissingExtra(
            f"open_clip is installed but cannot be imported: {problem}.",
            "Its torchvision must be the build that fits your torch (CPU or CUDA); see pytorch.org.",
        ) from problem
