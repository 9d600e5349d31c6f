"""Blocks are found by structure, on the real classes at their real sizes (no weights are made)."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from vlmend.errors import AnatomyProblem
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

FAMILIES = {
    "Llava": ("model.language_model.layers", "model.vision_tower"),
    "LlavaNext": ("model.language_model.layers", "model.vision_tower"),
    "LlavaOnevision": ("model.language_model.layers", "model.vision_tower"),
    "Qwen2VL": ("model.language_model.layers", "model.visual"),
    "Qwen2_5_VL": ("model.language_model.layers", "model.visual"),
    "Qwen3VL": ("model.language_model.layers", "model.visual"),
    "InternVL": ("model.language_model.layers", "model.vision_tower"),
    "Idefics3": ("model.text_model.layers", "model.vision_model"),
    "SmolVLM": ("model.text_model.layers", "model.vision_model"),
    "PaliGemma": ("model.language_model.layers", "model.vision_tower"),
    "Gemma3": ("model.language_model.layers", "model.vision_tower"),
    "Mistral3": ("model.language_model.layers", "model.vision_tower"),
    "Mllama": ("model.language_model.layers", "model.vision_model"),
    "Glm4v": ("model.language_model.layers", "model.visual"),
    "VipLlava": ("model.language_model.layers", "model.vision_tower"),
    "Cohere2Vision": ("model.language_model.layers", "model.vision_tower"),
    "Qwen3VLMoe": ("model.language_model.layers", "model.visual"),
    "Qwen3_5": ("model.language_model.layers", "model.visual"),
    "Glm4vMoe": ("model.language_model.layers", "model.visual"),
    "Glm46V": ("model.language_model.layers", "model.visual"),
}


def from_config(family: str) -> transformers.PreTrainedModel:
    config = getattr(transformers, f"{family}Config")()
    with torch.device("meta"):
        return getattr(transformers, f"{family}ForConditionalGeneration")(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_blocks_and_vision_tower_of_real_families(family: str) -> None:
    model = from_config(family)
    anatomy = find_anatomy(model)
    assert (anatomy.blocks_path, anatomy.vision_path) == FAMILIES[family]
    assert len(anatomy.blocks) == model.config.get_text_config(decoder=True).num_hidden_layers


@pytest.mark.parametrize(
    ("family", "notes"),
    [
        ("Llava", ()),
        ("Qwen2_5_VL", ("M-RoPE positions",)),
        ("Qwen3VLMoe", (
            "mixture of experts (60, 4 a token)", "M-RoPE positions",
            "image features added to image tokens after the first 3 blocks (DeepStack)",
        )),
        ("Qwen3_5", ("hybrid attention (linear in 24 of 32 layers)", "M-RoPE positions")),
        ("Glm4vMoe", ("mixture of experts (128, 8 a token) in 45 of 46 layers", "M-RoPE positions")),
        ("Gemma3", ("sliding window 4096 in 22 of 26 layers", "tied embeddings")),
        ("Mllama", ("cross-attention to the image in 8 of 40 layers",)),
    ],
)  # fmt: skip
def test_notes_tell_what_is_out_of_the_ordinary(family: str, notes: tuple[str, ...]) -> None:
    assert find_anatomy(from_config(family)).notes == notes


def test_ambiguity_is_an_error_with_the_tree_and_the_argument() -> None:
    model = tiny_vlm(layers=2).model
    decoder = model.model.language_model
    decoder.twins = copy.deepcopy(decoder.layers)
    with pytest.raises(AnatomyProblem) as problem:
        find_anatomy(model)
    assert "model.language_model.twins  2 x LlamaDecoderLayer" in problem.value.message
    assert "--blocks" in problem.value.hint
    assert find_anatomy(model, "model.language_model.twins").blocks == tuple(decoder.twins)


def test_a_wrong_path_is_refused(tiny: VLM) -> None:
    with pytest.raises(AnatomyProblem, match="no list of modules"):
        find_anatomy(tiny.model, "model.nowhere")
