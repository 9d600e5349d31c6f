"""Mllama: the image stays outside the sequence, and some decoder layers attend to it there."""

from __future__ import annotations

from collections.abc import Callable

from tests.models.families.parts import SIDE, TEXT, built, template, tokenizer_with
from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

from vlmend.models.vlm import VLM

__all__ = ["FAMILIES"]


def mllama() -> VLM:
    """The second of two layers crosses to up to four tiles of 16 pixels."""
    tokenizer = tokenizer_with(named={"image_token": "<|image|>"})
    tokenizer.bos_token = "<eos>"
    config = MllamaConfig(
        vision_config=MllamaVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
            image_size=16, patch_size=8, vision_output_dim=32, intermediate_layers_indices=[0], max_num_tiles=4,
        ),
        text_config=MllamaTextConfig(**TEXT, vocab_size=len(tokenizer), cross_attention_layers=[1]),
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip
    images = MllamaImageProcessorPil(size=SIDE, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer, chat_template=template("<|image|>"))
    return built("mllama", MllamaForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[], VLM]] = {"mllama": mllama}
