"""From a hub name or folder to a `Guard`, or one clear message why not.

A guard that would not fit into memory is refused before its weights are read: on the CPU the kernel would
kill the process, and the run with it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vlmend.errors import ModelProblem
from vlmend.models.guarding import Guard
from vlmend.models.guards import Family
from vlmend.models.load import DType, quiet

__all__ = ["check_guard", "load_guard"]


def check_guard(name: str | Path) -> None:
    """Find out without loading the weights whether a checkpoint is there and may be read.

    Raises:
        ModelProblem: It is missing or gated, or is no transformers checkpoint.
    """
    with _loading(name):
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
    with _loading(name), quiet():
        config = AutoConfig.from_pretrained(name)
        _check_memory(name, auto, config, wanted, device)
        processor: Any = (AutoProcessor if family.sees else AutoTokenizer).from_pretrained(name)
        model = auto.from_pretrained(name, dtype=wanted, use_safetensors=True).to(device)
    return Guard(family, str(name), model, processor)


@contextmanager
def _loading(name: str | Path) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, MemoryError) as problem:
        first = next(iter(str(problem).strip().splitlines()), repr(problem))
        raise ModelProblem(
            f"{name} cannot be loaded as a guard model: {first}",
            "Check the name (a hub name or a folder), the network, and for a gated model that you have accepted its "
            "terms and are logged in.",
        ) from problem


def _check_memory(name: str | Path, auto: Any, config: Any, dtype: torch.dtype | str, device: str) -> None:
    told = (
        dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(config.dtype or dtype).rpartition(".")[2], None)
    )
    with torch.device("meta"):
        weights = sum(p.numel() for p in auto.from_config(config).parameters())
    need = weights * (told or torch.float16).itemsize
    free = _free_bytes(device)
    if free is not None and need > free:
        raise ModelProblem(
            f"{name} needs {need / 1e9:.1f} GB on {device} and {free / 1e9:.1f} GB are free.",
            "Use a smaller guard model or a machine with more memory.",
        )


def _free_bytes(device: str) -> int | None:
    """Free memory where the system tells it."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    told = Path("/proc/meminfo")
    lines = told.read_text().splitlines() if device == "cpu" and told.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
