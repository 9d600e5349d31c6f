"""BLIP-2 and InstructBLIP: a Q-Former asks the tower, and its answers stand in front of the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.models.families.parts import SIDE, TEXT, VISION, built, template, tokenizer_with
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
)
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig, Blip2VisionConfig
from transformers.models.instructblip.configuration_instructblip import (
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
)

from vlmend.models.vlm import VLM

__all__ = ["FAMILIES", "blip2_over_t5"]

IMAGE, QUERIES = 3, 3
QFORMER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "encoder_hidden_size": 16, "pad_token_id": 0,
}  # fmt: skip


def blip2() -> VLM:
    """Over OPT, whose depth is that of the Q-Former too."""
    tokenizer = tokenizer_with()
    text = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=32, max_position_embeddings=256, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    processor = Blip2Processor(BlipImageProcessorPil(size=SIDE), tokenizer, num_query_tokens=QUERIES)
    processor.chat_template = template("")
    return built("blip2", Blip2ForConditionalGeneration, _config(text), processor)


def blip2_over_t5() -> PreTrainedModel:
    """Over T5, an encoder and a decoder: refused."""
    text = T5Config(vocab_size=99, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return Blip2ForConditionalGeneration(_config(text))


def instructblip() -> VLM:
    tokenizer, asking = tokenizer_with(), tokenizer_with()
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**VISION),
        qformer_config=InstructBlipQFormerConfig(**QFORMER, vocab_size=len(asking)),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)), num_query_tokens=QUERIES, image_token_index=IMAGE,
    )  # fmt: skip
    images = BlipImageProcessorPil(size=SIDE)
    processor = InstructBlipProcessor(images, tokenizer, asking, num_query_tokens=QUERIES)
    processor.chat_template = template("")
    return built("instructblip", InstructBlipForConditionalGeneration, config, processor)


def _config(text: PreTrainedConfig) -> Blip2Config:
    return Blip2Config(
        vision_config=Blip2VisionConfig(**VISION), qformer_config=Blip2QFormerConfig(**QFORMER),
        text_config=text, num_query_tokens=QUERIES, image_token_index=IMAGE,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], VLM]] = {"blip2": blip2, "instructblip": instructblip}
