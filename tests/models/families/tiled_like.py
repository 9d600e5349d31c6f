"""Families that cut an image into square tiles and read each with a tower of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.models.families.parts import SIDE, TEXT, VISION, built, template, tokenizer_with, without_video
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionProcessor,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from vlmend.models.loading.without_video import NoVideo
from vlmend.models.vlm import VLM

__all__ = ["FAMILIES", "NEEDS", "STAND_INS"]

SLIDING: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
"""A window shorter than any prompt, so that it is felt."""


class Cohere2Tiles(GotOcr2ImageProcessorPil):
    """Cohere2's own image processor needs torchvision; it is Got-OCR's with these settings."""

    crop_to_patches = True
    patch_size = 2

    def __init__(self) -> None:
        super().__init__(size=SIDE, max_patches=4)


def internvl() -> VLM:
    tokenizer = tokenizer_with(
        named={
            "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    )  # fmt: skip
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**VISION | {"image_size": [16, 16], "patch_size": [4, 4]}),
        text_config=Qwen2Config(**TEXT, vocab_size=len(tokenizer)), tie_word_embeddings=False,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
    )  # fmt: skip
    processor = without_video(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size=SIDE, max_patches=4), tokenizer, NoVideo(), image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>\n"),
    )  # fmt: skip
    return built("internvl", InternVLForConditionalGeneration, config, processor)


def aya_vision() -> VLM:
    tokenizer = tokenizer_with(
        "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL"
    )
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(**VISION | {"patch_size": 4}, vision_use_head=False),
        text_config=Cohere2Config(**TEXT, **SLIDING, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )  # fmt: skip
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessorPil(size=SIDE, max_patches=4), tokenizer, patch_size=4, img_size=16,
        downsample_factor=2, chat_template=template("<image>"),
    )  # fmt: skip
    return built("aya_vision", AyaVisionForConditionalGeneration, config, processor)


def cohere2_vision() -> VLM:
    tokenizer = tokenizer_with(
        named={
            "boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>", "image_token": "<|IMG_PATCH|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        }
    )  # fmt: skip
    config = Cohere2VisionConfig(
        vision_config=SiglipVisionConfig(**VISION | {"patch_size": 4}, vision_use_head=False),
        text_config=Cohere2Config(**TEXT, **SLIDING, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"), alignment_intermediate_size=64,
    )  # fmt: skip
    processor = Cohere2VisionProcessor(Cohere2Tiles(), tokenizer, chat_template=template("<|IMG_PATCH|>"))
    return built("cohere2_vision", Cohere2VisionForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {
    "internvl": internvl, "aya_vision": aya_vision, "cohere2_vision": cohere2_vision,
}  # fmt: skip

STAND_INS = {
    "cohere2_vision": "`Cohere2VisionProcessor` with Got-OCR's image processor: its own needs torchvision",
}

NEEDS = {"cohere2_vision": "torchvision"}
