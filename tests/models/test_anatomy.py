"""Blocks are found by structure, on the real classes at their real sizes (no weights are made)."""

from __future__ import annotations

import pytest
import torch
import transformers

from vlmend.errors import AnatomyProblem
from vlmend.models.anatomy import find_anatomy
from vlmend.models.vlm import VLM

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


def test_ambiguity_is_an_error_with_the_tree_and_the_argument() -> None:
    model = from_config("Blip2")
    with pytest.raises(AnatomyProblem) as problem:
        find_anatomy(model)
    assert "language_model.model.decoder.layers  12 x OPTDecoderLayer" in problem.value.message
    assert "--blocks" in problem.value.hint
    chosen = find_anatomy(model, "language_model.model.decoder.layers")
    assert len(chosen.blocks) == 12


def test_a_wrong_path_is_refused(tiny: VLM) -> None:
    with pytest.raises(AnatomyProblem, match="no list of modules"):
        find_anatomy(tiny.model, "model.nowhere")
