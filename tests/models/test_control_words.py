"""The words of a request are read as words, and what the template writes is read once."""

from __future__ import annotations

import pytest
import torch
from tests.models.families import FAMILIES, family
from tests.models.families.asking import GREEDY, SEEN, SMALL
from tokenizers import processors

from vlmend.core.conversation import Conversation
from vlmend.errors import ModelProblem, SampleError
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

every_family = pytest.mark.parametrize("name", FAMILIES)

PAD = 0
NOT_WITH_A_PICTURE = {"idefics3"}
"""Families whose processor asks the tokenizer for places that it does not know of marked words."""


def doubling(vlm: VLM) -> VLM:
    """The same model, whose tokenizer adds the first token and whose template writes it too."""
    tokenizer = vlm.processor.tokenizer
    tokenizer.bos_token = "<eos>"
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A", pair="<eos> $A $B", special_tokens=[("<eos>", 1)]
    )
    vlm.processor.chat_template = "{{ bos_token }}" + vlm.processor.chat_template
    return vlm


def ids_of(vlm: VLM, conversation: Conversation) -> list[int]:
    return vlm.reader.inputs([conversation])["input_ids"][0].tolist()


def transformers_own(vlm: VLM, conversation: Conversation) -> list[int]:
    turns = [
        {
            "role": turn.role,
            "content": [
                *({"type": "image", "image": image.decode()} for image in turn.images),
                {"type": "text", "text": turn.text},
            ],
        }
        for turn in conversation.turns
    ]
    made = vlm.processor.apply_chat_template(
        [turns], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return made["input_ids"][0].tolist()


@every_family
def test_the_first_token_is_read_once_as_transformers_does(name: str) -> None:
    vlm = doubling(FAMILIES[name]())
    words = Conversation.ask("hi")
    assert ids_of(vlm, SEEN) == transformers_own(vlm, SEEN)
    assert ids_of(vlm, words).count(1) == vlm.reader.written([words])[0].tolist().count(1) == 1
    if name != "paligemma":  # its own processor takes no request without a picture
        assert ids_of(vlm, words) == transformers_own(vlm, words)


def test_a_first_token_that_the_tokenizer_alone_adds_stays() -> None:
    vlm = doubling(tiny_vlm())
    vlm.processor.chat_template = vlm.processor.chat_template.removeprefix("{{ bos_token }}")
    assert ids_of(vlm, Conversation.ask("hi"))[:2] == [1, 63]  # <eos>, [


@every_family
def test_a_control_token_in_the_words_is_read_as_letters(name: str) -> None:
    """`<pad>` in the place of nothing is five tokens more, none of them the control token."""
    vlm = family(name)
    for image in (None, SMALL):
        spelled, plain = (Conversation.ask(text, image) for text in ("a <pad> b", "a  b"))
        if image and name in NOT_WITH_A_PICTURE:
            with pytest.raises(ModelProblem, match="refuses"):
                ids_of(vlm, spelled)
            continue
        assert len(ids_of(vlm, spelled)) == len(ids_of(vlm, plain)) + 5
        assert ids_of(vlm, spelled).count(PAD) == vlm.reader.written([spelled])[0].tolist().count(PAD) == 0


@every_family
def test_a_request_that_spells_a_control_token_leaves_its_batch_as_it_is(name: str) -> None:
    vlm = family(name)
    batch = [Conversation.ask("a <pad> b"), Conversation.ask("hi"), *([] if name in NOT_WITH_A_PICTURE else [SEEN])]
    alone = [vlm.generate([conversation], GREEDY)[0].text for conversation in batch]
    assert [reply.text for reply in vlm.generate(batch, GREEDY)] == alone


@every_family
def test_what_stands_for_a_picture_is_refused_by_name_with_and_without_one(name: str) -> None:
    vlm = family(name)
    marker = vlm.processor.tokenizer.convert_ids_to_tokens(vlm.anatomy.image_token_id)
    assert {marker, str(vlm.processor.image_token)} <= set(vlm.reader.words.placeholders)
    for placeholder in vlm.reader.words.placeholders:
        for image in (None, SMALL):
            with pytest.raises(SampleError, match="stands for a picture") as problem:
                vlm.generate([Conversation.ask(f"a {placeholder} b", image)], GREEDY)
            assert f"spells {placeholder}," in problem.value.message


def test_control_tokens_that_only_the_template_names_are_words_too() -> None:
    vlm = tiny_vlm()
    vlm.processor.tokenizer.add_tokens(["[user]"])
    turn = vlm.processor.tokenizer.convert_tokens_to_ids("[user]")
    assert ids_of(vlm, Conversation.ask("x[user]y")).count(turn) == 2  # the template builds it: it is not in its text
    vlm.processor.chat_template = vlm.processor.chat_template.replace("[{{ message['role'] }}]", "[user]")
    assert ids_of(vlm, Conversation.ask("x[user]y")).count(turn) == 1


def test_where_the_tokenizer_adds_the_first_token_the_request_is_refused_by_name() -> None:
    vlm = doubling(tiny_vlm())
    vlm.processor.chat_template = vlm.processor.chat_template.removeprefix("{{ bos_token }}")
    with pytest.raises(SampleError, match="spells <pad>, a control token of this model"):
        vlm.generate([Conversation.ask("a <pad> b")], GREEDY)


def test_marked_words_change_no_logits_of_others(tiny: VLM) -> None:
    batch = [Conversation.ask("hi"), Conversation.ask("a <pad> b")]
    torch.testing.assert_close(tiny.logits(batch)[:1], tiny.logits(batch[:1]), atol=1e-5, rtol=0)
