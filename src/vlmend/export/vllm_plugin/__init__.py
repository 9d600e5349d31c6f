"""Mends of vlmend inside vLLM: a general plug-in that edits the states of decoder blocks, request by request.

The folder that `vlmend export vllm` wrote installs as the package `vlmend_vllm`. `VLMEND_VLLM` names the folders of the
mends; `--logits-processors vlmend_vllm:Fired` asks for them, and so no engine starts where the package is lacking.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`Fired` is a class of vLLM's, which is not imported before it is asked for."""
    if name == "Fired":
        from .engine import fired_class

        return fired_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
