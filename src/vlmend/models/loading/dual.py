"""From a name or folder to a `DualEncoder`, or one clear message why not.

The class is the checkpoint's own where that one is a dual encoder, else the plain model of its kind. Weights that
the checkpoint lacks are refused: transformers would fill them with random numbers. Options, sizes and messages are
those of `load`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import MODEL_MAPPING, AutoConfig, AutoProcessor, BlipForImageTextRetrieval, PreTrainedConfig

from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.dual.encoder import DualEncoder, checked, dual_of
from vlmend.models.dual.open_clip import OPEN_CLIP_CONFIG, open_clip_towers
from vlmend.models.dual.towers import Featured
from vlmend.models.loading.options import check_packages, device_of
from vlmend.models.loading.problems import check_numbers, explained, processor_explained
from vlmend.models.loading.sizes import fitting
from vlmend.models.loading.vlm import LoadOptions, quiet

__all__ = ["dual_class", "is_dual", "is_open_clip", "load_dual"]

HUB = "hf-hub:"
WHAT = "a dual encoder"


def load_dual(
    model: str | Path, *, name: str | None = None, options: LoadOptions = LoadOptions(),
    config: PreTrainedConfig | None = None,
) -> DualEncoder:  # fmt: skip
    """Load any checkpoint with an image and a text tower.

    Args:
        model: Hub name or folder, of transformers or of open_clip. open_clip models of the Hub are written as
            open_clip writes them, `hf-hub:ORG/NAME`.
        name: What to call it; the hub name or folder unless told.
        options: Device, dtype, revision, attention and, for transformers, `allow_pickle`; the others are refused.
        config: Its config, where it was read before.

    Raises:
        BadParameter: An option that dual encoders do not have.
        ModelProblem: It cannot be found or loaded, lacks weights, does not fit into memory, or is no dual encoder.
        MissingExtra: It is an open_clip model and open_clip cannot be used here, or an option needs a package.
    """
    _check_options(options)
    check_packages(options)
    device = device_of(options)
    dtype = "float32" if options.dtype == "auto" and device == "cpu" else options.dtype
    named, folder = name or str(model), Path(model)
    on_hub = str(model).startswith(HUB)
    if on_hub or ((folder / OPEN_CLIP_CONFIG).exists() and not (folder / "config.json").exists()):
        with explained(model, options.revision, WHAT):
            folder = _from_hub(str(model).removeprefix(HUB), options.revision) if on_hub else folder
            return checked(open_clip_towers(folder, device, dtype), named)
    with explained(model, options.revision, WHAT):  # values of other kinds in a config fail wherever they are looked at
        loaded, processor = _of_transformers(model, options, device, dtype, config)
        return dual_of(loaded, processor, named)


def is_open_clip(model: str | Path) -> bool:
    """Whether a checkpoint is one of open_clip, which has a config of its own."""
    return str(model).startswith(HUB) or (Path(model) / OPEN_CLIP_CONFIG).exists()


def is_dual(model: str | Path, options: LoadOptions = LoadOptions(), config: PreTrainedConfig | None = None) -> bool:
    """Whether a checkpoint is one for `load_dual`, from its config alone; False where that cannot be read."""
    if is_open_clip(model):
        return True
    try:
        with quiet():
            config = config or AutoConfig.from_pretrained(model, revision=options.revision)
        own = [getattr(transformers, name, None) for name in config.architectures or ()]
        return any(_embeds(found) for found in own or [MODEL_MAPPING.get(type(config), None)])
    except Exception:  # whatever it is, loading the model tells it properly
        return False


def _of_transformers(
    model: str | Path, options: LoadOptions, device: str, dtype: str, config: PreTrainedConfig | None
) -> tuple[Any, Any]:
    revision = options.revision
    with quiet():
        config = config or AutoConfig.from_pretrained(model, revision=revision)
    kind = dual_class(model, config)
    with processor_explained(model, revision), quiet():
        processor = AutoProcessor.from_pretrained(model, revision=revision)
    fitting(model, kind, config, options)
    asked: dict[str, Any] = {"attn_implementation": options.attention} if options.attention != "auto" else {}
    with quiet():
        loaded, info = kind.from_pretrained(
            model, dtype=dtype if dtype == "auto" else getattr(torch, dtype), revision=revision,
            use_safetensors=None if options.allow_pickle else True, output_loading_info=True, **asked,
        )  # fmt: skip
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelProblem(
            f"{model} lacks {len(missing)} weights of {kind.__name__}, first {missing[0]}; they would be random.",
            "It was saved from another class, perhaps from one tower only; use a checkpoint of the whole dual encoder.",
        )
    check_numbers(model, loaded.named_parameters())
    return loaded.to(device), processor


def _check_options(options: LoadOptions) -> None:
    refused = [
        option
        for option in ("device_map", "quantize", "trust_remote_code", "blocks")
        if getattr(options, option) != getattr(LoadOptions(), option)
    ]
    if refused:
        raise BadParameter(
            f"Dual encoders are not loaded with {', '.join(refused)}.", "They are small: use device and dtype only."
        )


def dual_class(model: str | Path, config: PreTrainedConfig) -> Any:
    """The class that loads this config.

    Raises:
        ModelProblem: It is no dual encoder.
    """
    own = [getattr(transformers, name, None) for name in config.architectures or ()]
    for found in (*own, MODEL_MAPPING.get(type(config), None)):
        if _embeds(found):
            return found
    raise ModelProblem(
        f"{model} ({', '.join(config.architectures or ['class unknown'])}) is no dual encoder: it has no image and "
        "text features side by side.",
        "Models that chat are loaded with vlmend.models.loading.vlm; CLIP, SigLIP and ALIGN ones with load_dual.",
    )


def _embeds(kind: Any) -> bool:
    """Whether a class has image and text features side by side."""
    return isinstance(kind, type) and (issubclass(kind, Featured) or kind is BlipForImageTextRetrieval)


def _from_hub(name: str, revision: str) -> Path:
    """What an open_clip checkpoint needs, without any pickle."""
    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
