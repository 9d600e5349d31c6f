"""Versions and fingerprints: what a number depends on."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["fingerprint", "versions"]

LIBRARIES = ("vlmend", "torch", "transformers", "inspect-ai", "safetensors")
SAMPLED = 256
"""Values read of every tensor."""


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
    """SHA-256 over name, shape and 256 evenly spaced values of every parameter and buffer.

    Values are compared in bfloat16, so that a checkpoint loaded in float32 and in bfloat16 has one
    fingerprint. Any fine-tuning moves it; reading a 7B model takes well under a second.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        wrapped = bool(is_traceable_wrapper_subclass(tensor))  # as torchao's quantised weights are
        flat = (tensor.dequantize() if wrapped else tensor).detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLED)
        values = flat[::step][:SAMPLED].to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(f"{name}:{tuple(tensor.shape)}:".encode() + values.numpy().tobytes())
    return digest.hexdigest()
