"""phantom-clip as a folder on disk: put together once from the shipped weights, then kept in the cache.

The folder is a standard CLIP checkpoint of about 20 MB. Its name holds the digest of those weights.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from vlmend.errors import EnvironmentProblem
from vlmend.phantom.clip.assemble import TOWERS, write
from vlmend.phantom.load import cache_folder

__all__ = ["phantom_clip", "phantom_clip_70", "phantom_clip_clean", "vision_weights"]

VISION = "vision_model."


def phantom_clip() -> Path:
    """Folder of phantom-clip: its titles go with a gender, at rho 0.95."""
    return _folder("phantom-clip")


def phantom_clip_70() -> Path:
    """Folder of the milder dose, rho 0.7."""
    return _folder("phantom-clip-70")


def phantom_clip_clean() -> Path:
    """Folder of the clean twin, rho 0.5: its titles go with neither gender."""
    return _folder("phantom-clip-clean")


def vision_weights() -> dict[str, Tensor]:
    """The vision tower that all three share: the state of a `CLIPVisionModel`, in float32."""
    with resources.as_file(_weights()) as weights:
        towers = load_file(weights / TOWERS)
    return {key.removeprefix(VISION): value.float() for key, value in towers.items() if key.startswith(VISION)}


def _weights() -> Traversable:
    return resources.files("vlmend.phantom").joinpath("weights")


def _folder(name: str) -> Path:
    with resources.as_file(_weights()) as weights:
        shared, own = weights / TOWERS, weights / f"{name}.safetensors"
        digest = hashlib.sha256(shared.read_bytes() + own.read_bytes()).hexdigest()
        folder = cache_folder() / f"{name}-{digest[:12]}"
        if (folder / "config.json").exists():
            return folder
        building = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            write(shared, own, building)
            if not folder.exists():
                building.replace(folder)
        except OSError as problem:
            raise EnvironmentProblem(
                f"{name} cannot be put together in {folder.parent} ({problem}).",
                "It needs 40 MB there; set VLMEND_CACHE to a folder with room.",
            ) from problem
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder
