"""Idefics 2 and 3 and SmolVLM: a SigLIP-like tower, tiles of one size, and a grid written in special tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.models.families.parts import TEXT, VISION, built, template, tokenizer_with, without_video
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    MistralConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

from vlmend.models.loading.without_video import NoVideo
from vlmend.models.vlm import VLM

__all__ = ["FAMILIES", "NEEDS"]

IMAGE = 3
TILES = ["<fake_token_around_image>", "<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2))]
SIZES: dict[str, Any] = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}
"""Images of up to 32 pixels, cut into tiles of 16."""


def idefics2() -> VLM:
    tokenizer = tokenizer_with("<fake_token_around_image>", "<end_of_utterance>")
    config = Idefics2Config(
        vision_config=VISION, image_token_id=IMAGE,
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer)),
        perceiver_config={
            "hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2,
            "resampler_head_dim": 16, "num_key_value_heads": 1,
        },
    )  # fmt: skip
    images = Idefics2ImageProcessorPil(size={"longest_edge": 16, "shortest_edge": 8}, do_image_splitting=False)
    processor = Idefics2Processor(images, tokenizer, image_seq_len=3, chat_template=template("<image>"))
    return built("idefics2", Idefics2ForConditionalGeneration, config, processor)


def idefics3() -> VLM:
    tokenizer = tokenizer_with(*TILES, "<end_of_utterance>")
    config = Idefics3Config(
        vision_config=VISION, image_token_id=IMAGE, scale_factor=2,
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
    )  # fmt: skip
    images = Idefics3ImageProcessorPil(**SIZES)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=template("<image>"))
    return built("idefics3", Idefics3ForConditionalGeneration, config, processor)


def smolvlm() -> VLM:
    if processing_smolvlm.num2words is None:
        processing_smolvlm.num2words = str  # words for the frames of a video, and no test shows one
    tokenizer = tokenizer_with(*TILES, "<end_of_utterance>", "<video>")
    config = SmolVLMConfig(
        vision_config=VISION, image_token_id=IMAGE, scale_factor=2,
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
    )  # fmt: skip
    processor = without_video(SmolVLMProcessor)(
        SmolVLMImageProcessorPil(**SIZES), tokenizer, NoVideo(), image_seq_len=1, chat_template=template("<image>")
    )
    return built("smolvlm", SmolVLMForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {"idefics2": idefics2, "idefics3": idefics3, "smolvlm": smolvlm}

NEEDS = {"smolvlm": "num2words"}
