"""How a checkpoint is loaded: the options, the packages they need, and whether its weights fit into memory.

Light on purpose, since the command line reads the options before any model library is there. The loading itself is
in `load.py`, the errors of loading in `load_problems.py`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from vlmend.errors import BadParameter, MissingExtra, ModelProblem

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo

__all__ = [
    "Attention", "DType", "DeviceMap", "LoadOptions", "Quantize", "check_fits", "check_packages", "device_of",
    "dtype_of", "header_tensors", "needed_bytes", "size_told",
]  # fmt: skip

DType = Literal["auto", "float32", "float16", "bfloat16"]
DeviceMap = Literal["", "auto"]
Quantize = Literal["", "8bit", "4bit", "int8-torchao"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]

BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
QUANTISED_BYTES: dict[Quantize, float] = {"8bit": 1.0, "int8-torchao": 1.0, "4bit": 0.5625}
"""Bytes a weight; 4-bit blocks of 64 weights carry a float32 scale each."""
PACKAGES: dict[str, tuple[str, ...]] = {
    "8bit": ("bitsandbytes", "accelerate"),
    "4bit": ("bitsandbytes", "accelerate"),
    "int8-torchao": ("torchao", "accelerate"),
    "device_map": ("accelerate",),
    "flash_attention_2": ("flash_attn",),
}


@dataclass(frozen=True)
class LoadOptions:
    """How to load a checkpoint.

    Attributes:
        device: `cuda`, `cpu`, ...; empty is the GPU where there is one.
        dtype: Of the weights; `auto` is float32 on the CPU and the checkpoint's own on a GPU.
        device_map: `auto` spreads the model over all GPUs; empty puts it on one device.
        quantize: `8bit` and `4bit` (bitsandbytes), `int8-torchao` (weights only), or empty.
        attention: Implementation of attention; `auto` is transformers' own choice.
        trust_remote_code: Run the Python code that a checkpoint brings along.
        revision: Branch, tag or commit on the hub; a folder has none.
        allow_pickle: Read .bin files where there are no safetensors.
        blocks: Dotted path of the decoder blocks, where the structure cannot tell.
        send_outside: Send pictures to an API that lie outside of the folder of the data that names them.

    Raises:
        BadParameter: Values that are not known or do not fit together; all of them are named.
    """

    device: str = ""
    dtype: DType = "auto"
    device_map: DeviceMap = ""
    quantize: Quantize = ""
    attention: Attention = "auto"
    trust_remote_code: bool = False
    revision: str = "main"
    allow_pickle: bool = False
    blocks: str = ""
    send_outside: bool = False

    def __post_init__(self) -> None:
        known = (("dtype", DType), ("device_map", DeviceMap), ("quantize", Quantize), ("attention", Attention))
        values = cast("dict[str, object]", vars(self))
        wrong = [
            f"{name} {values[name]!r} is none of {', '.join(repr(one) for one in get_args(kind))}"
            for name, kind in known
            if values[name] not in get_args(kind)
        ]
        if self.device and self.device_map:
            wrong.append("device and device_map exclude each other: a map chooses the devices itself")
        if self.attention == "flash_attention_2" and (self.dtype == "float32" or self.device == "cpu"):
            wrong.append("flash_attention_2 needs a GPU and float16 or bfloat16")
        if wrong:
            raise BadParameter(f"These loading options do not work: {'; '.join(wrong)}.", "See docs/guides/load.md.")


def check_packages(options: LoadOptions) -> None:
    """Refuse options whose packages are not installed.

    Raises:
        MissingExtra: All that are missing, with the command that installs them.
    """
    wanted = [*PACKAGES.get(options.quantize, ()), *PACKAGES.get(options.attention, ())]
    wanted += PACKAGES["device_map"] if options.device_map else ()
    missing = [package for package in dict.fromkeys(wanted) if importlib.util.find_spec(package) is None]
    if missing:
        names = " ".join(package.replace("_", "-") for package in missing)
        raise MissingExtra(
            f"These loading options need {names.replace(' ', ' and ')}, which is not installed.",
            f"Run: pip install {names}",
        )


def device_of(options: LoadOptions) -> str:
    """The device of the weights: the one asked for, or the GPU where there is one.

    Raises:
        BadParameter: No device has this name.
        ModelProblem: This machine does not have it.
    """
    import torch

    if not options.device:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(options.device).type
    except RuntimeError as problem:
        raise BadParameter(f"There is no device {options.device!r}.", "Write cpu, cuda, cuda:1 or mps.") from problem
    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.backends.mps.is_available()):
        raise ModelProblem(
            f"Device {options.device} is not on this machine, or this torch ({torch.__version__}) cannot use it.",
            "Leave out --device, or install the torch that fits the GPU (pytorch.org).",
        )
    return options.device


def dtype_of(options: LoadOptions, device: str) -> DType:
    """The dtype of the weights that are not quantised; `auto` where the checkpoint's own is kept."""
    if options.dtype != "auto":
        return options.dtype
    if options.quantize == "8bit":  # bitsandbytes computes these products in float16, whatever comes in
        return "float16"
    if device == "cpu":
        return "float32"
    return "bfloat16" if options.quantize else "auto"


def header_tensors(model: str | Path, revision: str = "main") -> list[TensorInfo] | None:
    """What the headers of the safetensors files tell of every tensor; no weight is read.

    Looks into the folder, else into the cache, else asks the hub; None where none of them can tell.
    """
    import huggingface_hub

    try:
        folder = Path(model) if Path(model).is_dir() else _cached(str(model), revision)
        if folder is not None:
            found = huggingface_hub.get_local_safetensors_metadata(folder)
        else:
            found = huggingface_hub.get_safetensors_metadata(str(model), revision=revision)
    except Exception:  # whatever is wrong, loading says it better; the size is no reason to stop
        return None
    return [tensor for file in found.files_metadata.values() for tensor in file.tensors.values()]


def needed_bytes(tensors: Iterable[TensorInfo], options: LoadOptions, device: str, vocabulary: int) -> int:
    """Memory of the weights alone.

    An estimate where they are quantised: every matrix counts as quantised unless one of its sides is the
    vocabulary, since embeddings and output stay as they are.

    Args:
        tensors: From `header_tensors`.
        options: What decides the size of a weight.
        device: Where the weights go.
        vocabulary: Number of tokens.
    """
    dtype = dtype_of(options, device)
    each = QUANTISED_BYTES.get(options.quantize)
    total = 0.0
    for tensor in tensors:
        stored = tensor.data_offsets[1] - tensor.data_offsets[0]
        if "F" not in tensor.dtype:
            total += stored
        elif each is not None and len(tensor.shape) == 2 and vocabulary not in tensor.shape:
            total += prod(tensor.shape) * each
        else:
            total += prod(tensor.shape) * BYTES[dtype] if dtype in BYTES else stored
    return int(total)


def check_fits(
    name: str, tensors: list[TensorInfo], options: LoadOptions, device: str, vocabulary: int, free: int | None
) -> None:
    """Refuse a model whose weights are larger than the free memory.

    Args:
        free: Free memory in bytes, as `free_bytes` tells; None lets every model pass.

    Raises:
        ModelProblem: It does not fit; the hint says what would.
    """
    need = needed_bytes(tensors, options, device, vocabulary)
    if free is None or need <= free:
        return
    others = {
        "--dtype bfloat16": replace(options, dtype="bfloat16"),
        "--quantize 8bit": replace(options, quantize="8bit"),
        "--quantize 4bit": replace(options, quantize="4bit"),
    }
    sizes = {way: needed_bytes(tensors, other, device, vocabulary) for way, other in others.items()}
    ways = [f"{way} needs {size_told(size)}" for way, size in sizes.items() if size < need]
    ways += ["--device-map auto spreads it over all GPUs"] if device.startswith("cuda") else []
    place = {"auto": "all devices"}.get(device, device)
    raise ModelProblem(
        f"{name} does not fit: its weights need {size_told(need)} on {place}, and {size_told(free)} are free.",
        f"{'; '.join(ways) or 'Nothing smaller is left'}; or use a smaller model or a larger machine.",
    )


def size_told(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    from rich.filesize import decimal

    return decimal(size)


def _cached(model: str, revision: str) -> Path | None:
    """The folder of a hub model whose weights are in the cache."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors.index.json", "model.safetensors"):
        file = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(file, str):
            return Path(file).parent
    return None
