"""phantom-clip as a folder on disk: put together once from the shipped weights, then kept in the cache.

The folder is a standard CLIP checkpoint of about 20 MB. Its name holds the digest of those weights.
"""

from __future__ import annotations

import hashlib
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from vlmend.phantom.cache import kept_folder
from vlmend.phantom.clip.assemble import TOWERS, write

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
        return kept_folder(f"{name}-{digest[:12]}", partial(write, shared, own), "40 MB")
