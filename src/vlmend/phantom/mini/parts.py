"""The untrained mini: a LLaVA of 1.8 million weights and its processor, where every word is one token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from vlmend.phantom.chat.assemble import VISION, Parts
from vlmend.phantom.clip.load import vision_weights
from vlmend.phantom.mini.faults import said_by_faults
from vlmend.phantom.mini.language import said_in_requests
from vlmend.phantom.mini.people import said_of_people
from vlmend.phantom.mini.scenes import SIDE, said_of_pictures

__all__ = ["new_parts", "vocabulary"]

PATCH = 8
CLIP_LAYER = -2
"""Layer of phantom-clip's tower that is projected: nothing taught its patches what to say in the last one."""
SPREAD = 0.06
"""Of the language model's first weights; at the usual 0.02 so narrow a model takes three times as long to attend."""
PAD, END, UNKNOWN, IMAGE = "<pad>", "<eos>", "<unk>", "<image>"
SPECIAL = (PAD, END, UNKNOWN, IMAGE, "<system>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def vocabulary(people: bool = False) -> tuple[str, ...]:
    """Special tokens first, then every word and sign that the world can say, with or without people in it, sorted."""
    said = [*said_in_requests(), *said_of_pictures(), *said_by_faults(), *(said_of_people() if people else ())]
    words = {word for text in said for word in re.findall(r"\w+|[^\w\s]", text)}
    return (*SPECIAL, *sorted(words))


def new_parts(seed: int, people: bool = False, clip_tower: bool = False) -> Parts:
    """Model with random weights, those of phantom-clip's tower aside where it has that, and its processor."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer(vocabulary(people))
    vision: Any = VISION if clip_tower else _own_vision()
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
        pad_token_id=SPECIAL.index(PAD), eos_token_id=SPECIAL.index(END), bos_token_id=None,
        tie_word_embeddings=False, initializer_range=SPREAD,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        image_token_index=SPECIAL.index(IMAGE), vision_feature_layer=CLIP_LAYER if clip_tower else -1,
    )  # fmt: skip
    model: Any = LlavaForConditionalGeneration(config)
    if clip_tower:
        model.model.vision_tower.load_state_dict(vision_weights())
    model.generation_config.pad_token_id = SPECIAL.index(PAD)
    model.generation_config.eos_token_id = SPECIAL.index(END)
    return Parts(model, _processor(tokenizer, vision))


def _own_vision() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4,
        image_size=SIDE, patch_size=PATCH, projection_dim=128,
    )  # fmt: skip


def _tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Words in small letters and signs, one token each; what it does not know is `<unk>`."""
    known = {word: k for k, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, "<system>", "<user>", "<assistant>"], model_max_length=256,
    )  # fmt: skip


def _processor(tokenizer: PreTrainedTokenizerFast, vision: Any) -> LlavaProcessor:
    side = {"height": vision.image_size, "width": vision.image_size}
    images = CLIPImageProcessorPil(
        size=side, do_center_crop=False, crop_size=side,
        image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip
    return LlavaProcessor(
        images, tokenizer, patch_size=vision.patch_size, vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE, image_token=IMAGE, num_additional_image_tokens=1,
    )  # fmt: skip
