"""From a name or folder to a `VLM`, or one clear message why not.

What is cheap comes first: options, config, processor and the size of the weights are checked before a weight is
read. Options and sizes are in `loading.py`, messages in `load_problems.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedConfig,
    ProcessorMixin,
    TorchAoConfig,
)
from transformers.utils import logging as hf_logging

from vlmend.core.provenance import fingerprint
from vlmend.errors import ModelProblem
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.loading.options import (
    DType,
    LoadOptions,
    check_packages,
    device_of,
    dtype_of,
)
from vlmend.models.loading.places import ORIGINAL_LLAVA, check_place, is_original_llava
from vlmend.models.loading.problems import (
    another_kind,
    check_complete,
    check_numbers,
    check_template,
    check_used,
    explained,
    processor_explained,
    said_unused,
)
from vlmend.models.loading.sizes import fitting
from vlmend.models.loading.without_video import without_video
from vlmend.models.vlm import VLM

__all__ = ["DType", "LoadOptions", "auto_class", "config_of", "load", "quiet"]


def config_of(model: str | Path, options: LoadOptions) -> PreTrainedConfig:
    """The config of a checkpoint.

    Raises:
        ModelProblem: It cannot be found or read, or is in a format that transformers does not read.
    """
    check_place(model)
    with explained(model, options.revision), quiet():
        config = AutoConfig.from_pretrained(
            model, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
    if is_original_llava(config.to_dict()):
        cause, way_out = ORIGINAL_LLAVA
        raise ModelProblem(f"{model} cannot be loaded as a model: {cause}", way_out)
    return config


def load(
    model: str | Path, *, name: str | None = None, options: LoadOptions = LoadOptions(),
    config: PreTrainedConfig | None = None,
) -> VLM:  # fmt: skip
    """Load any image-text-to-text checkpoint.

    Args:
        model: Hub name or folder.
        name: What to call it; the hub name or folder unless told.
        options: How to load it.
        config: Its config, where it was read before.

    Raises:
        ModelProblem: It cannot be found, loaded, does not fit into memory, or cannot be used for chat.
        AnatomyProblem: Its decoder blocks cannot be told.
        MissingExtra: An option needs a package that is not installed.
    """
    check_packages(options)
    device = device_of(options)
    config = config or config_of(model, options)
    with explained(model, options.revision):  # values of other kinds in a config fail wherever they are looked at
        auto = auto_class(model, config)
        processor = _processor(model, options)
        fitting(model, auto, config, options)
        with quiet():
            loaded, info = auto.from_pretrained(model, **_arguments(options, device), output_loading_info=True)
        loaded = loaded if options.device_map or options.quantize else loaded.to(device)
        loaded.eval()
        _check_here(model, loaded)
        anatomy = find_anatomy(loaded, options.blocks or None)
        unused = list(info["unexpected_keys"])
        check_complete(model, list(info["missing_keys"]), anatomy)
        check_used(model, unused, anatomy)
        check_numbers(model, loaded.named_parameters())
        if unused:
            anatomy = replace(anatomy, notes=(*anatomy.notes, said_unused(model, unused)))
        return VLM(name or str(model), loaded, processor, anatomy, fingerprint(loaded))


@contextmanager
def quiet() -> Generator[None]:
    """Without transformers' own progress bars and reports; downloads keep theirs."""
    shown, told = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(told)
        if shown:
            hf_logging.enable_progress_bar()


def auto_class(model: str | Path, config: PreTrainedConfig) -> Any:
    """The class that loads this config: transformers' own, else the one that the checkpoint's code names.

    Raises:
        ModelProblem: It is a model of another kind.
    """
    text: PreTrainedConfig = config.get_text_config(decoder=True)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not text.is_encoder_decoder:
        return AutoModelForImageTextToText
    own = getattr(config, "auto_map", None) or {}
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM, AutoModel):
        if auto.__name__ in own:
            return auto
    raise another_kind(model, config)


def _processor(model: str | Path, options: LoadOptions) -> Any:
    """The processor, if it reads images and has a chat template."""
    with processor_explained(model, options.revision), quiet(), without_video():
        processor = AutoProcessor.from_pretrained(
            model, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
    if not isinstance(processor, ProcessorMixin):
        raise ModelProblem(
            f"{model} has no processor that reads images: its files give a {type(processor).__name__} only.",
            "Copy the processor files (processor_config.json, preprocessor_config.json) of the original checkpoint "
            "into its folder.",
        )
    tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
    templates: Any = processor.chat_template or tokenizer.chat_template  # type: ignore[attr-defined]
    processor.chat_template = templates.get("default") if isinstance(templates, dict) else templates
    check_template(model, processor)
    if tokenizer.pad_token is None:  # nothing looks at padding, but a batch cannot be made without
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return processor


def _arguments(options: LoadOptions, device: str) -> dict[str, Any]:
    """What `from_pretrained` is asked for."""
    dtype = dtype_of(options, device)
    asked: dict[str, Any] = {
        "dtype": dtype, "revision": options.revision, "trust_remote_code": options.trust_remote_code,
        "use_safetensors": None if options.allow_pickle else True,
    }  # fmt: skip
    if options.attention != "auto":
        asked["attn_implementation"] = options.attention
    if options.device_map or options.quantize:  # quantised weights cannot be moved once they are made
        asked["device_map"] = options.device_map or {"": device}
    match options.quantize:
        case "8bit":
            asked["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        case "4bit":
            asked["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        case "int8-torchao":
            torchao: Any = importlib.import_module("torchao.quantization")
            asked["quantization_config"] = TorchAoConfig(torchao.Int8WeightOnlyConfig())
        case "":
            pass
    return asked


def _check_here(model: str | Path, loaded: torch.nn.Module) -> None:
    """Every weight must be where it can be read: the fingerprint needs it, and offloaded ones are only a shape."""
    away = [name for name, tensor in loaded.named_parameters() if tensor.is_meta]
    if away:
        raise ModelProblem(
            f"{model} does not fit the GPUs: {len(away)} of its weights ({away[0]}, ...) were offloaded.",
            "Use --dtype bfloat16, --quantize 4bit or --device cpu; vlmend works on weights in memory.",
        )
