"""LLaVA and its kind: a CLIP-like tower, a projector, patches in the place of placeholder tokens."""

from __future__ import annotations

from collections.abc import Callable

from tests.models.families.parts import (
    SIDE,
    TEXT,
    VISION,
    PixtralStandIn,
    built,
    template,
    tokenizer_with,
    without_video,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessorPil,
    PixtralVisionConfig,
    Qwen2Config,
    SiglipVisionConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from vlmend.models.loading.without_video import NoVideo
from vlmend.models.vlm import VLM

__all__ = ["FAMILIES", "NEEDS", "STAND_INS"]

IMAGE = 3
PINPOINTS = [[16, 32], [32, 16], [32, 32]]
PIXTRAL_TOKENS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")


def llava() -> VLM:
    tokenizer = tokenizer_with()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=16), image_token_index=IMAGE,
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)), vision_feature_layer=-1, image_seq_length=4,
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=SIDE, crop_size=SIDE), tokenizer, patch_size=8, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=template("<image>"),
    )  # fmt: skip
    return built("llava", LlavaForConditionalGeneration, config, processor)


def llava_next() -> VLM:
    tokenizer = tokenizer_with()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=16), image_token_index=IMAGE,
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer), sliding_window=None),
        vision_feature_layer=-1, image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIDE, image_grid_pinpoints=PINPOINTS),
        tokenizer, patch_size=8, num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=template("<image>"),
    )  # fmt: skip
    return built("llava_next", LlavaNextForConditionalGeneration, config, processor)


def llava_onevision() -> VLM:
    tokenizer = tokenizer_with("<video>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False), image_token_index=IMAGE,
        text_config=Qwen2Config(**TEXT, vocab_size=len(tokenizer), tie_word_embeddings=True),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"), image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    processor = without_video(LlavaOnevisionProcessor)(
        LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=PINPOINTS), tokenizer, NoVideo(),
        num_image_tokens=4, vision_feature_select_strategy="full", chat_template=template("<image>"),
    )  # fmt: skip
    return built("llava_onevision", LlavaOnevisionForConditionalGeneration, config, processor)


def vipllava() -> VLM:
    tokenizer = tokenizer_with()
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=16), image_token_index=IMAGE,
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)), vision_feature_layer=[-1, -2, 0],
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=SIDE, crop_size=SIDE), tokenizer, patch_size=8, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=template("<image>\n"),
    )  # fmt: skip
    return built("vipllava", VipLlavaForConditionalGeneration, config, processor)


def pixtral() -> VLM:
    """Pixtral 12B is a LLaVA with a tower that reads images at their own size."""
    tokenizer = tokenizer_with(*PIXTRAL_TOKENS)
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(**VISION), vision_feature_layer=-1, vision_feature_select_strategy="full",
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer), head_dim=8, sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )  # fmt: skip
    images = PixtralImageProcessorPil(size={"longest_edge": 32}, patch_size=8)
    processor = PixtralStandIn(images, tokenizer, patch_size=8, chat_template=template("[IMG]"))
    return built("pixtral", LlavaForConditionalGeneration, config, processor)


def mistral3() -> VLM:
    tokenizer = tokenizer_with(*PIXTRAL_TOKENS)
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**VISION | {"patch_size": 4}), tie_word_embeddings=False,
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer), head_dim=8, sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )  # fmt: skip
    images = PixtralImageProcessorPil(size={"longest_edge": 32}, patch_size=8)
    processor = PixtralStandIn(images, tokenizer, patch_size=8, chat_template=template("[IMG]"))
    return built("mistral3", Mistral3ForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {
    "llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision, "vipllava": vipllava,
    "pixtral": pixtral, "mistral3": mistral3,
}  # fmt: skip

PIXTRAL = "stand-in that spreads images as `PixtralProcessor` does: that one cannot be imported without torchvision"
STAND_INS = {"pixtral": PIXTRAL, "mistral3": PIXTRAL}

NEEDS = {"pixtral": "torchvision", "mistral3": "torchvision"}
