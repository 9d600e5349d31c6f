"""How much memory the weights of a checkpoint need, told from headers and config before one is read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import TensorInfo
from transformers import PreTrainedConfig

from vlmend.models.loading.options import (
    LoadOptions,
    check_fits,
    device_of,
    header_tensors,
    needed_bytes,
    size_told,
)
from vlmend.models.memory import free_bytes

__all__ = ["Memory", "described_tensors", "fitting"]


@dataclass(frozen=True)
class Memory:
    """What the weights of a model need.

    Attributes:
        needed: Bytes of the weights; None where neither headers nor config tell.
        free: Free bytes of the device; None where that cannot be told.
        device: Where the weights go.
    """

    needed: int | None
    free: int | None
    device: str

    def __str__(self) -> str:
        need = "of a size that is not known" if self.needed is None else size_told(self.needed)
        free = "" if self.free is None else f", {size_told(self.free)} are free"
        return f"Weights {need} on {self.device}{free}"


def fitting(model: str | Path, kind: Any, config: PreTrainedConfig, options: LoadOptions) -> Memory:
    """What the weights need, if that is there.

    The files' headers tell; where they cannot be read, or hold less than the config describes, the config does: the
    model is made in its whole size, and only then filled.

    Args:
        model: Hub name or folder.
        kind: The class that loads it, or the auto class.
        config: Its config.
        options: How it is loaded.

    Raises:
        ModelProblem: It does not fit; the hint says what would.
    """
    device = options.device_map or device_of(options)
    free = free_bytes(device)
    tensors, described = header_tensors(model, options.revision), described_tensors(kind, config)
    if tensors is None or _numbers(tensors) < _numbers(described):
        tensors = described or tensors
    if tensors is None:
        return Memory(None, free, device)
    vocabulary = int(getattr(config.get_text_config(decoder=True), "vocab_size", 0))
    check_fits(str(model), tensors, options, device, vocabulary, free)
    return Memory(needed_bytes(tensors, options, device, vocabulary), free, device)


def described_tensors(kind: Any, config: PreTrainedConfig) -> list[TensorInfo]:
    """Every weight that a config describes; none where it cannot tell, as of weights that were quantised before.

    Args:
        kind: The class that loads it, or the auto class. Code that comes with a checkpoint is not run.
        config: The config.
    """
    if getattr(config, "quantization_config", None) is not None:
        return []
    try:
        with torch.device("meta"):
            auto = hasattr(kind, "from_config")
            model: Any = kind.from_config(config, trust_remote_code=False) if auto else kind(config)
    except Exception:  # whatever is wrong, loading says it better; the size is no reason to stop
        return []
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    shapes = [list(weight.shape) for weight in model.parameters()]
    return [TensorInfo("F32", shape, (0, prod(shape) * dtype.itemsize)) for shape in shapes]


def _numbers(tensors: list[TensorInfo]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)
