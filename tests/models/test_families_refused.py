"""Families that cannot be audited or mended are refused with the reason, before anything is read."""

from __future__ import annotations

import pytest
from tests.models.families.refused import REFUSED, reason, refusals, written
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

ENCODER = "is an encoder-decoder: image and request are read by an encoder"
REASONS = {
    "Blip2ForConditionalGeneration over T5": ENCODER,
    "Florence2ForConditionalGeneration": ENCODER,
    "FuyuForCausalLM": "its config has no vision_config",
    "ChameleonForConditionalGeneration": "it turns an image into words of its vocabulary",
    "Emu3ForConditionalGeneration": "it turns an image into words of its vocabulary",
    "Kosmos2ForConditionalGeneration": "names no image token",
    "Kosmos2_5ForConditionalGeneration": "names no image token",
    "GitForCausalLM": "names no image token",
    "BlipForConditionalGeneration": "names no image token",
    "IdeficsForVisionText2Text": "no model inside it has its vision_config",
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_is_told(name: str) -> None:
    assert REASONS[name] in reason(REFUSED[name])


def test_the_table_in_the_docs_is_what_is_said() -> None:
    assert written() == refusals()


def test_phi4_multimodal_is_not_registered_as_image_text_to_text() -> None:
    """docs/models.md says so; once transformers registers it, it wants a tiny model of its own."""
    assert "phi4_multimodal" not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
