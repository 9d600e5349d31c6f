"""From a hub name or folder to a `Guard`, or one clear message why not.

A guard that would not fit into memory is refused before its weights are read: on the CPU the kernel would
kill the process, and the run with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vlmend.errors import ModelProblem
from vlmend.models.judging.families import Family
from vlmend.models.judging.guard import Guard
from vlmend.models.loading.options import DType
from vlmend.models.loading.problems import explained
from vlmend.models.loading.vlm import quiet
from vlmend.models.memory import free_bytes

__all__ = ["check_guard", "check_memory", "load_guard"]

KIND = "a guard model"


def check_guard(name: str | Path) -> None:
    """Find out without loading the weights whether a checkpoint is there and may be read.

    Raises:
        ModelProblem: It is missing or gated, or is no transformers checkpoint.
    """
    with explained(name, what=KIND):
        AutoConfig.from_pretrained(name)


def load_guard(family: Family, name: str | Path, *, device: str | None = None, dtype: DType = "auto") -> Guard:
    """Load a guard model.

    Args:
        family: What it is asked.
        name: Hub name or folder.
        device: `cuda`, `cpu`, ...; the GPU where there is one.
        dtype: Of the weights; `auto` is float32 on the CPU and the checkpoint's own on a GPU.

    Raises:
        ModelProblem: It is missing or gated, is of another class, or does not fit into memory.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = torch.float32 if dtype == "auto" and device == "cpu" else dtype
    auto: Any = AutoModelForImageTextToText if family.sees else AutoModelForCausalLM
    with explained(name, what=KIND), quiet():
        config = AutoConfig.from_pretrained(name)
        check_memory(name, auto, config, wanted, device)
        processor: Any = (AutoProcessor if family.sees else AutoTokenizer).from_pretrained(name)
        model = auto.from_pretrained(name, dtype=wanted, use_safetensors=True).to(device)
    return Guard(family, str(name), model, processor)


def check_memory(name: str | Path, auto: Any, config: Any, dtype: torch.dtype | str, device: str) -> None:
    """Refuse a checkpoint whose weights do not fit, before they are read.

    Raises:
        ModelProblem: They do not.
    """
    told = (
        dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(config.dtype or dtype).rpartition(".")[2], None)
    )
    with torch.device("meta"):
        weights = sum(p.numel() for p in auto.from_config(config).parameters())
    need = weights * (told or torch.float16).itemsize
    free = free_bytes(device)
    if free is not None and need > free:
        raise ModelProblem(
            f"{name} needs {need / 1e9:.1f} GB on {device} and {free / 1e9:.1f} GB are free.",
            "Use a smaller model or a machine with more memory.",
        )
