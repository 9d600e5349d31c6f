"""Aria and Llama 4: a mixture of experts in each block, and in Llama 4 attention in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.models.families.parts import SIDE, TEXT, VISION, built, template, tokenizer_with
from transformers import (
    AriaConfig,
    AriaForConditionalGeneration,
    AriaImageProcessorPil,
    AriaProcessor,
    AriaTextConfig,
    BatchFeature,
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4Processor,
    Llama4TextConfig,
    Llama4VisionConfig,
    SiglipImageProcessorPil,
)
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

from vlmend.models.vlm import VLM

__all__ = ["FAMILIES", "NEEDS", "STAND_INS"]

LLAMA4_TOKENS = (
    "<|image|>", "<|image_start|>", "<|image_end|>", "<|tile_x_separator|>", "<|tile_y_separator|>", "<|patch|>",
)  # fmt: skip


class OneTile(SiglipImageProcessorPil):
    """Stands for `Llama4ImageProcessor`, which cannot be imported without torchvision: every image is one tile."""

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        made = super().preprocess(images, **kwargs)
        made["aspect_ratios"] = [[1, 1]] * len(made["pixel_values"])
        return made


def aria() -> VLM:
    """Four experts, two of them a token. The real image processor knows sides of 490 and 980 pixels only."""
    tokenizer = tokenizer_with(named={"image_token": "<|img|>"})
    tower = VISION | {"image_size": 490, "patch_size": 70}
    config = AriaConfig(
        vision_config=Idefics3VisionConfig(**tower), image_token_index=tokenizer.image_token_id,
        projector_patch_to_query_dict={49: 2},
        text_config=AriaTextConfig(
            **TEXT, vocab_size=len(tokenizer), moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1
        ),
    )  # fmt: skip
    processor = AriaProcessor(
        AriaImageProcessorPil(max_image_size=490), tokenizer, template("<|img|>"), size_conversion={490: 2}
    )
    processor.images_kwargs = {"max_image_size": 490, "split_image": False}
    return built("aria", AriaForConditionalGeneration, config, processor)


def llama4() -> VLM:
    """Four experts, one a token; the first of two layers attends in chunks of 16 tokens, the second to all."""
    tokenizer = tokenizer_with(*LLAMA4_TOKENS)
    config = Llama4Config(
        vision_config=Llama4VisionConfig(
            hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=4, pixel_shuffle_ratio=0.5, projector_input_dim=16, projector_output_dim=16,
            vision_output_dim=16,
        ),
        text_config=Llama4TextConfig(
            **TEXT, intermediate_size_mlp=64, head_dim=8, vocab_size=len(tokenizer), num_local_experts=4,
            num_experts_per_tok=1, attention_chunk_size=16, no_rope_layers=[1, 0],
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<|patch|>"),
    )  # fmt: skip
    processor = Llama4Processor(OneTile(size=SIDE), tokenizer, patch_size=4, chat_template=template("<|image|>"))
    return built("llama4", Llama4ForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {"aria": aria, "llama4": llama4}

STAND_INS = {"llama4": "one tile an image: its image processor needs torchvision"}

NEEDS = {"llama4": "torchvision"}
