"""Families that read an image at its own size as a grid of patches, with M-RoPE positions: Qwen-VL and GLM-V."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.models.families.parts import EXPERTS, TEXT, built, template, tokenizer_with, without_video
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessorPil,
    Glm46VProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)

from vlmend.models.loading.without_video import NoVideo
from vlmend.models.vlm import VLM

__all__ = ["FAMILIES"]

QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_TEMPLATE = template("<|vision_start|><|image_pad|><|vision_end|>")
GLM_TOKENS = (
    "<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>", "<|begin_of_video|>", "<|end_of_video|>",
)  # fmt: skip
GLM_TEMPLATE = template("<|begin_of_image|><|image|><|end_of_image|>", roles=("system", "user", "assistant"))
GRID: dict[str, Any] = {
    "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32,
}  # fmt: skip
"""A tower of 2 blocks on patches of 4 pixels, 2 x 2 of them to a token."""
SIZE = {"shortest_edge": 16 * 16, "longest_edge": 32 * 32}
"""Smallest and largest image, in pixels: 4 to 16 tokens."""


def qwen2_vl() -> VLM:
    tower = {key: GRID[key] for key in ("depth", "num_heads", "patch_size")} | {"embed_dim": 16, "hidden_size": 32}
    tokenizer = tokenizer_with(*QWEN_TOKENS)
    config = _qwen(Qwen2VLConfig, tokenizer, vision=tower, rope={"mrope_section": [1, 1, 2]})
    processor = without_video(Qwen2VLProcessor)(_patches(), tokenizer, NoVideo(), chat_template=QWEN_TEMPLATE)
    return built("qwen2_vl", Qwen2VLForConditionalGeneration, config, processor)


def qwen2_5_vl() -> VLM:
    tower = GRID | {"window_size": 16, "fullatt_block_indexes": [1]}
    tokenizer = tokenizer_with(*QWEN_TOKENS)
    config = _qwen(Qwen2_5_VLConfig, tokenizer, vision=tower, rope={"mrope_section": [1, 1, 2]})
    processor = without_video(Qwen2_5_VLProcessor)(_patches(), tokenizer, NoVideo(), chat_template=QWEN_TEMPLATE)
    return built("qwen2_5_vl", Qwen2_5_VLForConditionalGeneration, config, processor)


def qwen3_vl() -> VLM:
    tokenizer = tokenizer_with(*QWEN_TOKENS)
    config = _qwen(Qwen3VLConfig, tokenizer, head_dim=8)
    return built("qwen3_vl", Qwen3VLForConditionalGeneration, config, _qwen3_processor(tokenizer))


def qwen3_vl_moe() -> VLM:
    tokenizer = tokenizer_with(*QWEN_TOKENS)
    config = _qwen(Qwen3VLMoeConfig, tokenizer, head_dim=8, num_experts=4, **EXPERTS)
    return built("qwen3_vl_moe", Qwen3VLMoeForConditionalGeneration, config, _qwen3_processor(tokenizer))


def qwen3_5() -> VLM:
    """Every layer but the last keeps a running state in the place of keys and values."""
    tokenizer = tokenizer_with(*QWEN_TOKENS)
    config = _qwen(
        Qwen3_5Config, tokenizer, vision=GRID | {"num_position_embeddings": 16}, head_dim=32,
        layer_types=["linear_attention", "full_attention"], linear_key_head_dim=8, linear_value_head_dim=8,
        linear_num_key_heads=2, linear_num_value_heads=4,
    )  # fmt: skip
    return built("qwen3_5", Qwen3_5ForConditionalGeneration, config, _qwen3_processor(tokenizer))


def glm4v() -> VLM:
    tokenizer = tokenizer_with(*GLM_TOKENS)
    processor = without_video(Glm4vProcessor)(_glm_patches(), tokenizer, NoVideo(), chat_template=GLM_TEMPLATE)
    return built("glm4v", Glm4vForConditionalGeneration, _glm(Glm4vConfig, tokenizer), processor)


def glm4v_moe() -> VLM:
    """The first block is dense, the second one has experts."""
    tokenizer = tokenizer_with(*GLM_TOKENS)
    config = _glm(Glm4vMoeConfig, tokenizer, n_routed_experts=4, first_k_dense_replace=1, **EXPERTS)
    processor = without_video(Glm4vProcessor)(_glm_patches(), tokenizer, NoVideo(), chat_template=GLM_TEMPLATE)
    return built("glm4v_moe", Glm4vMoeForConditionalGeneration, config, processor)


def glm46v() -> VLM:
    tokenizer = tokenizer_with(*GLM_TOKENS)
    images = Glm46VImageProcessorPil(patch_size=4, size=SIZE)
    processor = without_video(Glm46VProcessor)(images, tokenizer, NoVideo(), chat_template=GLM_TEMPLATE)
    kinds = {"text": {"model_type": "glm4v_text"}, "vision": {"model_type": "glm4v_vision"}}
    config = _glm(Glm46VConfig, tokenizer, vision=kinds["vision"], **kinds["text"])
    return built("glm46v", Glm46VForConditionalGeneration, config, processor)


def _qwen(
    kind: type[PreTrainedConfig], tokenizer: PreTrainedTokenizerFast, vision: dict[str, Any] | None = None,
    rope: dict[str, Any] | None = None, **text: Any,
) -> PreTrainedConfig:  # fmt: skip
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(QWEN_TOKENS))
    rope = {"rope_type": "default", "rope_theta": 10000.0, **(rope or {"mrope_section": [2, 1, 1]})}
    tower = vision or GRID | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return kind(
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope} | text, vision_config=tower,
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip


def _glm(
    kind: type[PreTrainedConfig], tokenizer: PreTrainedTokenizerFast, vision: dict[str, Any] | None = None, **text: Any
) -> PreTrainedConfig:
    ids = dict(zip(GLM_TOKENS, tokenizer.convert_tokens_to_ids(list(GLM_TOKENS)), strict=True))
    rope = {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]
    }  # fmt: skip
    return kind(
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "num_attention_heads": 2} | text,
        vision_config=GRID | {"image_size": 16} | (vision or {}),
        image_token_id=ids["<|image|>"], video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"], image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"], video_end_token_id=ids["<|end_of_video|>"],
    )  # fmt: skip


def _patches() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(patch_size=4, size=SIZE)


def _glm_patches() -> Glm4vImageProcessorPil:
    return Glm4vImageProcessorPil(patch_size=4, size=SIZE)


def _qwen3_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    return without_video(Qwen3VLProcessor)(_patches(), tokenizer, NoVideo(), chat_template=QWEN_TEMPLATE)


FAMILIES: dict[str, Callable[[], VLM]] = {
    "qwen2_vl": qwen2_vl, "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_5": qwen3_5, "glm4v": glm4v, "glm4v_moe": glm4v_moe, "glm46v": glm46v,
}  # fmt: skip
