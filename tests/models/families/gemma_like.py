"""PaliGemma and Gemma 3, 3n and 4: attention both ways over the prompt or the image, sliding windows, shared keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.models.families.parts import SIDE, TEXT, VISION, built, template, tokenizer_with
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from vlmend.models.vlm import VLM

__all__ = ["FAMILIES"]

IMAGE = 3
HEADS: dict[str, Any] = {"head_dim": 8}


def paligemma() -> VLM:
    tokenizer = tokenizer_with()
    tokenizer.bos_token = "<eos>"
    images = SiglipImageProcessorPil(size=SIDE)
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(images, tokenizer, chat_template=template("<image>", roles=("user", "assistant")))
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False), image_token_index=IMAGE,
        text_config=GemmaConfig(**TEXT, **HEADS, vocab_size=len(tokenizer)), projection_dim=32, hidden_size=32,
        vocab_size=len(tokenizer),
    )  # fmt: skip
    return built("paligemma", PaliGemmaForConditionalGeneration, config, processor)


def gemma3() -> VLM:
    """A window of 8 tokens in the first of two layers."""
    tokenizer = tokenizer_with(
        named={"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image>"}
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size=SIDE), tokenizer, image_seq_length=4, chat_template=template("<start_of_image>")
    )
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False), image_token_index=IMAGE,
        text_config=Gemma3TextConfig(
            **TEXT, **HEADS, vocab_size=len(tokenizer), sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=4,
    )  # fmt: skip
    return built("gemma3", Gemma3ForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {"paligemma": paligemma, "gemma3": gemma3}
