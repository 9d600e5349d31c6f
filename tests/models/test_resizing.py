"""The pixels of a picture that count are those after the resize of the model that reads it."""

from __future__ import annotations

from typing import Any

import PIL.Image
import pytest
from tests.models.duals import built
from tests.models.families import family
from transformers.image_utils import SizeDict

from vlmend.core.conversation import Conversation
from vlmend.core.images import Image
from vlmend.errors import BadImage
from vlmend.models.dual.encoder import dual_of
from vlmend.models.reading.resizing import check_resized, short_side
from vlmend.models.vlm import VLM


def strip(width: int, height: int) -> Image:
    return Image.from_pixels(PIL.Image.new("RGB", (width, height)), "strip")


def test_a_strip_is_refused_by_what_the_resize_would_make_of_it() -> None:
    """With a short side of 224, 1 x 1,275 is 224 x 285,600, 63,974,400 pixels; with one more row, 64,024,576."""
    check_resized((1, 1275), 224, "strip")
    for size in ((1, 1276), (1276, 1), (1, 20_000), (10, 12_760)):
        with pytest.raises(BadImage, match="the model brings its short side to 224"):
            check_resized(size, 224, "strip")
    check_resized((1, 20_000), None, "strip")


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3", "idefics2", "mllama"])
def test_a_processor_that_bounds_its_pixels_takes_any_shape(name: str) -> None:
    assert short_side(family(name).processor.image_processor) is None


def test_a_dual_encoder_refuses_a_strip_by_its_name() -> None:
    """A CLIP processor brings the short side to 16: 1 x 250,001 would be 16 x 4,000,016, 64,000,256 pixels."""
    dual = dual_of(*built("clip"), "clip")
    assert dual.towers.short_side == 16
    with pytest.raises(BadImage, match="strip"):
        dual.embed_images([strip(1, 250_001)])


def test_a_model_that_answers_refuses_it_where_its_processor_would_blow_it_up(
    tiny: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor: Any = tiny.processor.image_processor
    asked = Conversation.ask("what", strip(1, 2000))
    assert tiny.logits([asked]).shape[0] == 1
    monkeypatch.setattr(processor, "size", SizeDict(shortest_edge=224))
    with pytest.raises(BadImage, match="224x448000"):
        tiny.logits([asked])
