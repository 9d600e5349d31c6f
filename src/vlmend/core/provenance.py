"""Versions and fingerprints: what a number depends on."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["bits_digest", "fingerprint", "versions"]

LIBRARIES = ("vlmend", "torch", "transformers", "inspect-ai", "safetensors")
BASE = torch.bfloat16
"""In which the weights of two models are compared."""
PIECE = 1 << 24
"""Values of a tensor that are read at a time."""


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over name, shape and every value of every parameter and buffer: a change of one value moves it.

    Values are compared in bfloat16, so that a checkpoint loaded in float32 and in bfloat16 has one fingerprint.
    What that rounds off is in `bits_digest`. It takes 0.6 s of one core for 1 GB in float32 (docs/decisions/0017).
    """
    return _digest(model, lambda values: values.to(BASE) if values.is_floating_point() else values)


def bits_digest(model: nn.Module) -> str:
    """SHA-256 over what `fingerprint` rounds off: every bit of the tensors that bfloat16 does not hold."""
    return _digest(model, lambda values: values, lambda tensor: tensor.is_floating_point() and tensor.dtype != BASE)


def _digest(
    model: nn.Module, seen: Callable[[Tensor], Tensor], wanted: Callable[[Tensor], bool] = lambda tensor: True
) -> str:
    """SHA-256 over the tensors of a model, each by its own; pieces are read on the CPU as `seen` gives them."""

    def one(item: tuple[str, Tensor]) -> str:
        name, tensor = item
        wrapped = bool(is_traceable_wrapper_subclass(tensor))  # as torchao's quantised weights are
        flat = (tensor.dequantize() if wrapped else tensor).detach().reshape(-1)
        digest = hashlib.sha256(f"{name}:{tuple(tensor.shape)}:".encode())
        for piece in flat.split(PIECE):
            digest.update(seen(piece).cpu().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    with ThreadPoolExecutor() as threads:  # neither hashing nor copying holds the interpreter
        tensors = [item for item in sorted(model.state_dict().items()) if wanted(item[1])]
        return hashlib.sha256("".join(threads.map(one, tensors)).encode()).hexdigest()
