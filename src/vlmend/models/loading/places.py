"""What lies at the path of a model, told from its file names and JSON alone: no library, no weight.

People pass files, adapters, pipelines and checkpoints in other formats; what a library says of those is no help.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmend.core.files import read_json
from vlmend.errors import ModelProblem

__all__ = ["ORIGINAL_LLAVA", "PIPELINE", "check_place", "is_original_llava", "is_pipeline"]

INDEX = "model.safetensors.index.json"
PIPELINE = "model_index.json"
"""What tells a folder of a pipeline of diffusers, and names its parts."""
CONFIGS = ("config.json", "open_clip_config.json")
GGUF = (
    "vlmend reads transformers checkpoints. Pass the folder or hub name that it was converted from, or serve it "
    "(llama.cpp's llama-server) and audit api:NAME with --api-base."
)
ORIGINAL_LLAVA = (
    "it is in LLaVA's original format, which transformers does not read.",
    "Take the converted checkpoint (hub names that begin with llava-hf/), or convert it with "
    "convert_llava_weights_to_hf.py of transformers 4.",
)
"""Cause and way out."""


def check_place(model: str | Path) -> None:
    """Refuse what is there but is no checkpoint that transformers reads, or lacks part of its weights.

    Args:
        model: A hub name, about which nothing is told, or a path.

    Raises:
        ModelProblem: What it is, and what to pass instead.
    """
    place = Path(model).expanduser()
    if place.is_file():
        raise _problem(place, *_of_file(place))
    if not place.is_dir():
        return
    if not any((place / name).exists() for name in CONFIGS):
        raise _problem(place, *_without_config(place))
    config = read_json(place / "config.json")
    if isinstance(config, Mapping) and is_original_llava(config):
        raise _problem(place, *ORIGINAL_LLAVA)
    lacking = _lacking(place)
    if lacking:
        raise _problem(
            place, f"{len(lacking)} of the files that its {INDEX} names are not there, first {lacking[0]}.",
            "Fetch the checkpoint again (hf download NAME), or copy these files into the folder.",
        )  # fmt: skip


def is_pipeline(model: str | Path) -> bool:
    """Whether a path is the folder of a pipeline of diffusers."""
    return (Path(model).expanduser() / PIPELINE).is_file()


def is_original_llava(config: Mapping[str, Any]) -> bool:
    """Whether a config is one of LLaVA's own code: it names the vision tower, where transformers describes it."""
    return "mm_vision_tower" in config


def _problem(place: Path, cause: str, way_out: str) -> ModelProblem:
    return ModelProblem(f"{place} cannot be loaded as a model: {cause}", way_out)


def _of_file(file: Path) -> tuple[str, str]:
    if file.suffix == ".gguf":
        return "it is a GGUF file.", GGUF
    return "it is a file, and a model is a folder with a config.json.", f"Pass the folder: {file.parent}."


def _without_config(folder: Path) -> tuple[str, str]:
    """Cause and way out of a folder that holds no config of a model."""
    if (folder / "adapter_config.json").exists():
        return _of_adapter(folder)
    if is_pipeline(folder):
        return "it is a pipeline of diffusers, which draws pictures.", "Pass a model that reads them (docs/models.md)."
    if any(folder.glob("*.gguf")):
        return "it holds GGUF files alone.", GGUF
    below = sorted(file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/config.json"))
    if below:
        return "it has no config.json, but a folder in it does.", f"Did you mean {below[0]}?"
    return (
        "it has no config.json that names its model type.",
        "Pass a hub name or a folder that holds one, beside the processor and the weights.",
    )


def _of_adapter(folder: Path) -> tuple[str, str]:
    told = read_json(folder / "adapter_config.json")
    base = told.get("base_model_name_or_path") if isinstance(told, Mapping) else None
    return (
        f"it is an adapter (PEFT) of {base or 'a model that it does not name'}, without that model.",
        "Merge the two once: peft's PeftModel.from_pretrained(base, folder).merge_and_unload(), then save_pretrained() "
        "of model and processor into a folder, and pass that.",
    )


def _lacking(folder: Path) -> list[str]:
    index = read_json(folder / INDEX)
    held = index.get("weight_map") if isinstance(index, Mapping) else None
    named = set(held.values()) if isinstance(held, Mapping) else set()
    return sorted(str(name) for name in named if not (folder / str(name)).exists())
