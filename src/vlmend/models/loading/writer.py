"""From a hub name or folder to a language model that writes, or one clear message why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from vlmend.errors import ModelProblem
from vlmend.models.loading.guard import check_memory
from vlmend.models.loading.problems import explained
from vlmend.models.loading.vlm import quiet

__all__ = ["check_writer", "load_writer"]

KIND = "a writer model"


def check_writer(name: str | Path) -> None:
    """Find out without loading the weights whether a checkpoint is there and may be read.

    Raises:
        ModelProblem: It is missing or gated, or is no checkpoint of a language model that writes.
    """
    with explained(name, what=KIND):
        config = AutoConfig.from_pretrained(name)
    if not any(type(config) in kinds for kinds in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)):
        raise _no_writer(name, f"it is a {type(config).__name__.removesuffix('Config')}")


def load_writer(name: str | Path, *, device: str | None = None) -> tuple[Any, Any]:
    """A causal language model, or one that reads images too and is only ever given text, with its tokenizer.

    Args:
        name: Hub name or folder.
        device: `cuda`, `cpu`, ...; the GPU where there is one. On the CPU weights are float32, elsewhere the
            checkpoint's own.

    Raises:
        ModelProblem: It is missing or gated, is of another class, lacks weights, or does not fit into memory.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype: torch.dtype | str = torch.float32 if device == "cpu" else "auto"
    with explained(name, what=KIND), quiet():
        config = AutoConfig.from_pretrained(name)
        sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        auto: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        check_memory(name, auto, config, dtype, device)
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model, told = auto.from_pretrained(name, dtype=dtype, use_safetensors=True, output_loading_info=True)
    if lacking := sorted(told["missing_keys"]):
        raise _no_writer(name, f"it holds no weights for {', '.join(lacking[:3])}")
    return model.to(device).eval(), tokenizer


def _no_writer(name: str | Path, why: str) -> ModelProblem:
    return ModelProblem(f"{name} is no language model that writes: {why}.", "Name a checkpoint of a causal model.")
