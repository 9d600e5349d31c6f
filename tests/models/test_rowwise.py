"""Requests processed one at a time and laid side by side, on the real processors that need it."""

from __future__ import annotations

import pytest
import torch
from tests.models.families.asking import SMALL
from tests.models.families.gemma_like import paligemma
from tests.models.families.idefics_like import idefics3
from tests.models.families.querying import IMAGE, QUERIES, blip2, instructblip

from vlmend.core.conversation import Conversation, Turn
from vlmend.errors import ModelProblem
from vlmend.models.reading.rowwise import needs_images, writes_placeholders
from vlmend.models.vlm import VLM

TOLD = Conversation.ask("a much longer request")
SEEN = Conversation.ask("what", SMALL)


def ids(vlm: VLM, *batch: Conversation) -> torch.Tensor:
    return vlm.reader.inputs(batch)["input_ids"]


def test_only_the_processors_that_need_it_are_asked_row_by_row() -> None:
    found = {
        vlm.name: (writes_placeholders(vlm.processor), needs_images(vlm.processor))
        for vlm in (blip2(), instructblip(), paligemma(), idefics3())
    }
    assert found == {
        "blip2": (True, False),
        "instructblip": (True, False),
        "paligemma": (False, True),
        "idefics3": (False, False),
    }


def test_placeholders_stand_right_before_the_words_and_padding_before_both() -> None:
    """38 tokens in the longer row, 21 words and 3 placeholders in the other: 14 of padding. `Blip2Processor` by
    itself puts these between placeholders and words."""
    seen, told = ids(blip2(), SEEN, TOLD).tolist()
    assert (len("[user]a much longer request[assistant]"), len("[user]what[assistant]")) == (38, 21)
    assert seen[:17] == [0] * 14 + [IMAGE] * QUERIES
    assert not {0, IMAGE} & {*seen[17:], *told}


def test_a_text_is_written_as_with_an_image_without_the_placeholders() -> None:
    """PaliGemma's processor puts a start token before the words and a newline after them."""
    vlm = paligemma()
    told = ids(vlm, SEEN.without_images())[0].tolist()
    words = vlm.processor.tokenizer("[user]what[assistant]\n", add_special_tokens=False).input_ids
    assert told == [1, *words]
    with_image = vlm.processor(text=["<image>[user]what[assistant]"], images=[[SMALL.decode()]])["input_ids"][0]
    assert list(with_image) == [IMAGE] * 4 + told


def test_images_belong_to_the_rows_that_have_them() -> None:
    inputs = instructblip().reader.inputs([TOLD, SEEN])
    assert inputs["pixel_values"].shape[0] == 1
    assert inputs["qformer_input_ids"].shape == (1, len("[user]what[assistant]"))


def test_more_images_than_the_processor_places_are_refused() -> None:
    """Blip2Processor would drop the second one without a word."""
    with pytest.raises(ModelProblem, match="places one image"):
        blip2().reader.inputs([Conversation((Turn("user", "compare", (SMALL, SMALL)),))])
