"""From a folder to a `DrawPipeline`, or one clear message why not.

The one home of `diffusers` (extra `generate`) beside the recipe of phantom-draw.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from vlmend.core.files import read_json
from vlmend.errors import BadParameter, MissingExtra, ModelProblem
from vlmend.models.draw.pipeline import DrawPipeline, pipeline_of
from vlmend.models.loading.options import LoadOptions, device_of
from vlmend.models.loading.places import PIPELINE
from vlmend.models.loading.problems import check_numbers, explained
from vlmend.models.loading.vlm import quiet

__all__ = ["diffusers", "load_draw", "unsaid"]

WHAT = "a text-to-image pipeline"


def diffusers() -> Any:
    """The library.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        library: Any = importlib.import_module("diffusers")
    except ImportError as problem:
        raise MissingExtra(
            f"Pictures are drawn with diffusers, which cannot be used here ({problem}).",
            "pip install 'vlmend[generate]'",
        ) from problem
    library.utils.logging.disable_progress_bar()
    return library


def load_draw(model: str | Path, *, name: str | None = None, options: LoadOptions = LoadOptions()) -> DrawPipeline:
    """Load any text-to-image pipeline folder of diffusers.

    Args:
        model: Its folder.
        name: What to call it; the folder unless told.
        options: Device and dtype; the others are refused.

    Raises:
        BadParameter: An option that pipelines do not have.
        ModelProblem: It cannot be loaded, comes with code of its own, or does not draw from a prompt alone.
        MissingExtra: diffusers is not installed.
    """
    _check_options(options)
    device, folder = device_of(options), Path(model).expanduser()
    dtype = options.dtype if options.dtype != "auto" else "float32" if device == "cpu" else "float16"
    library = diffusers()
    with explained(model, what=WHAT):
        kind = _class_of(library, folder)
        with unsaid():
            pipeline = kind.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
            )
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            check_numbers(f"{model} ({part})", module.named_parameters())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline_of(pipeline.to(device), name or str(model))


def _class_of(library: Any, folder: Path) -> Any:
    """The pipeline's class, by the name in its index.

    Raises:
        ModelProblem: diffusers has none of that name, or it draws from more than a prompt.
    """
    index = read_json(folder / PIPELINE)
    name = cast("Mapping[str, Any]", index).get("_class_name") if isinstance(index, Mapping) else None
    if not isinstance(name, str) or not hasattr(library, name):
        raise ModelProblem(
            f"{folder} cannot be loaded as {WHAT}: its {PIPELINE} names no pipeline of diffusers ({name}).",
            "Pipelines with code of their own are not run; pass a folder that diffusers' save_pretrained wrote.",
        )
    kind = getattr(library, name)
    asked = list(inspect.signature(kind.__call__).parameters.values())[1:]
    needed = [one.name for one in asked if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if (
        "prompt" not in {one.name for one in asked}
        or set(needed) - {"prompt"}
        or "image" in [one.name for one in asked]
    ):
        raise ModelProblem(
            f"{folder} cannot be loaded as {WHAT}: {name} draws from more than a prompt, or from none.",
            "Pass a text-to-image pipeline.",
        )
    return kind


def _check_options(options: LoadOptions) -> None:
    refused = [
        name
        for name, value in vars(options).items()
        if name not in ("device", "dtype") and value != getattr(LoadOptions(), name)
    ]
    if refused:
        raise BadParameter(f"Pipelines are not loaded with {', '.join(refused)}.", "Use device and dtype only.")


@contextmanager
def unsaid() -> Generator[None]:
    """Without progress bars, and without what is said of parts that were expected to be of another class."""
    told = logging.getLogger("diffusers")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        told.setLevel(level)
