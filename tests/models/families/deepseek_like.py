"""DeepSeek-VL with one tower and with two, Janus, and Ovis 2 with its visual vocabulary."""

from __future__ import annotations

from collections.abc import Callable

from tests.models.families.parts import SIDE, TEXT, VISION, built, template, tokenizer_with
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridImageProcessorPil,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessorPil,
    DeepseekVLProcessor,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessorPil,
    JanusProcessor,
    LlamaConfig,
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2ImageProcessorPil,
    Ovis2Processor,
    Qwen2Config,
    SamVisionConfig,
    SiglipVisionConfig,
)
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.ovis2.configuration_ovis2 import Ovis2VisionConfig

from vlmend.models.vlm import VLM

__all__ = ["FAMILIES"]

IMAGE = 3
INDICATORS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def deepseek_vl() -> VLM:
    tokenizer = tokenizer_with(named={"image_token": "<image_placeholder>"})
    config = DeepseekVLConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False), image_token_id=tokenizer.image_token_id,
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
    )  # fmt: skip
    images = DeepseekVLImageProcessorPil(size=SIDE, min_size=4)
    processor = DeepseekVLProcessor(images, tokenizer, template("<image_placeholder>"), num_image_tokens=4)
    return built("deepseek_vl", DeepseekVLForConditionalGeneration, config, processor)


def deepseek_vl_hybrid() -> VLM:
    """A second tower of SAM's kind reads the image at four times the side."""
    tokenizer = tokenizer_with(named={"image_token": "<image_placeholder>"})
    config = DeepseekVLHybridConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False), image_token_id=tokenizer.image_token_id,
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        high_res_vision_config=SamVisionConfig(
            hidden_size=16, output_channels=8, num_hidden_layers=2, num_attention_heads=2, image_size=64,
            patch_size=16, mlp_dim=32, window_size=2, global_attn_indexes=[1],
        ),
    )  # fmt: skip
    images = DeepseekVLHybridImageProcessorPil(size=SIDE, min_size=4, high_res_size={"height": 64, "width": 64})
    processor = DeepseekVLHybridProcessor(images, tokenizer, template("<image_placeholder>"), num_image_tokens=4)
    return built("deepseek_vl_hybrid", DeepseekVLHybridForConditionalGeneration, config, processor)


def janus() -> VLM:
    tokenizer = tokenizer_with(
        named={"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    )
    config = JanusConfig(
        vision_config=JanusVisionConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8, mlp_ratio=2,
            projection_dim=32, num_image_tokens=4,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8, num_embeddings=8, base_channels=32, channel_multiplier=[1, 1], num_res_blocks=1,
            latent_channels=8, num_patches=2, projection_dim=32, image_token_embed_dim=32,
        ),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)), image_token_id=tokenizer.image_token_id,
    )  # fmt: skip
    images = JanusImageProcessorPil(size=SIDE, min_size=4)
    processor = JanusProcessor(images, tokenizer, template("<image_placeholder>"), num_image_tokens=4)
    return built("janus", JanusForConditionalGeneration, config, processor)


def ovis2() -> VLM:
    """Each patch is a mixture over a visual vocabulary of 32 words; tiles are marked by five tokens of their own."""
    tokenizer = tokenizer_with("<IMG_ATOM>", *INDICATORS)
    indicators = [tokenizer.convert_tokens_to_ids(token) for token in INDICATORS]
    config = Ovis2Config(
        vision_config=Ovis2VisionConfig(**VISION, vocab_size=32, num_visual_indicator_tokens=len(INDICATORS)),
        text_config=Qwen2Config(**TEXT, vocab_size=len(tokenizer)), hidden_size=32, vocab_size=len(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"), visual_indicator_token_ids=indicators,
    )  # fmt: skip
    images = Ovis2ImageProcessorPil(size=SIDE, crop_to_patches=True, max_patches=4)
    processor = Ovis2Processor(images, tokenizer, template("<image>"), image_seq_length=4)
    return built("ovis2", Ovis2ForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {
    "deepseek_vl": deepseek_vl, "deepseek_vl_hybrid": deepseek_vl_hybrid, "janus": janus, "ovis2": ovis2,
}  # fmt: skip
