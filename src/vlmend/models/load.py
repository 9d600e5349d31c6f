"""From a name or folder to a `VLM`, or one clear message why not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as hf_logging

from vlmend.core.provenance import fingerprint
from vlmend.errors import ModelProblem
from vlmend.models.anatomy import find_anatomy
from vlmend.models.vlm import VLM

__all__ = ["DType", "load", "quiet"]

DType = Literal["auto", "float32", "float16", "bfloat16"]


def load(
    model: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dtype: DType = "auto",
    revision: str = "main",
    blocks: str | None = None,
) -> VLM:
    """Load any image-text-to-text checkpoint.

    Args:
        model: Hub name or folder.
        name: What to call it; the hub name or folder unless told.
        device: `cuda`, `cpu`, ...; the GPU where there is one.
        dtype: Of the weights; `auto` is float32 on the CPU and the checkpoint's own on a GPU.
        revision: Hub revision.
        blocks: Dotted path of the decoder blocks, where the structure cannot tell.

    Raises:
        ModelProblem: It cannot be found, loaded, or used for chat.
        AnatomyProblem: Its decoder blocks cannot be told.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = torch.float32 if dtype == "auto" and device == "cpu" else dtype
    try:
        with quiet():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                model, dtype=wanted, revision=revision, use_safetensors=True
            )
            processor = AutoProcessor.from_pretrained(model, revision=revision)
    except (OSError, ValueError, ImportError) as problem:
        raise ModelProblem(
            f"{model} cannot be loaded as an image-text-to-text model: {_first_line(problem)}",
            "Check the name (a hub name, a folder, or `phantom`), the network, and for a gated model "
            "that you have accepted its terms and are logged in.",
        ) from problem
    if not getattr(processor, "chat_template", None):
        raise ModelProblem(
            f"{model} has no chat template, so requests cannot be put to it.",
            "Use an instruction-tuned checkpoint, or add a chat_template.jinja to its folder.",
        )
    loaded = loaded.to(device).eval()
    anatomy = find_anatomy(loaded, blocks)
    return VLM(name or str(model), loaded, processor, anatomy, fingerprint(loaded))


@contextmanager
def quiet() -> Generator[None]:
    """Without transformers' own progress bars; downloads keep theirs."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).strip().splitlines()), repr(problem))
