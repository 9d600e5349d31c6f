"""One request never ends a batch, a run or a fit; what is wrong with the model is one problem of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.families import FAMILIES, family

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.examples import Example
from vlmend.core.images import Image, noise_image
from vlmend.errors import BadImage, BatchProblem, ModelProblem, SampleError
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

GREEDY = Sampling(max_new_tokens=4)
FINE = [Conversation.ask("one"), Conversation.ask("two", noise_image(16, 1)), Conversation.ask("three")]
MARKER = Conversation.ask("what does <image> mean", noise_image(16, 2))


def outcomes(vlm: VLM, batch: Sequence[Conversation]) -> tuple[object, ...]:
    with pytest.raises(BatchProblem) as problem:
        vlm.generate(batch, GREEDY)
    return problem.value.outcomes


def texts(found: Sequence[object]) -> list[str]:
    return [one.text for one in found if isinstance(one, Reply)]


def short(limit: int) -> VLM:
    """A model made to read so many tokens."""
    vlm = tiny_vlm()
    vlm.model.config.get_text_config().max_position_embeddings = limit
    return vlm


def test_an_image_marker_in_a_prompt_costs_that_request_only(tiny: VLM) -> None:
    found = outcomes(tiny, [FINE[0], MARKER, *FINE[1:]])
    assert isinstance(found[1], SampleError)
    assert texts(found) == [reply.text for reply in tiny.generate(FINE, GREEDY)]


def test_a_prompt_beyond_the_context_is_told_in_tokens() -> None:
    """[user] + 60 letters + [assistant] are 6 + 60 + 11 = 77 tokens."""
    vlm = short(64)
    found = outcomes(vlm, [FINE[0], Conversation.ask("a" * 60)])
    assert isinstance(found[1], SampleError)
    assert found[1].message == "The request has 77 tokens, the model reads 64."
    assert len(texts(found)) == 1


def test_a_picture_that_takes_more_tokens_than_the_first_is_counted_by_its_own() -> None:
    """LLaVA-NeXT cuts 64 x 16 into more tiles than 16 x 16; the limit lies between the two."""
    vlm = FAMILIES["llava_next"]()
    small, large = (Conversation.ask("what", noise_image(16, 1)), Conversation.ask("what", tall(16, 64)))
    lengths = [int(vlm.reader.inputs([one])["attention_mask"].sum()) for one in (small, large)]
    assert lengths[0] < lengths[1]
    vlm.generate([small], GREEDY)  # its way to decode is found by a trial, with longer prompts
    vlm.model.config.get_text_config().max_position_embeddings = lengths[1] - 1
    found = outcomes(vlm, [small, large])
    assert isinstance(found[1], SampleError)
    assert found[1].message == f"The request has {lengths[1]} tokens, the model reads {lengths[1] - 1}."
    assert len(texts(found)) == 1


def tall(width: int, height: int) -> Image:
    return Image.from_pixels(noise_image(64, 3).decode().crop((0, 0, width, height)))


def test_a_prompt_that_just_fits_is_answered() -> None:
    assert short(77).generate([Conversation.ask("a" * 60)], GREEDY)[0].prompt_tokens == 77


def test_a_broken_image_costs_its_request_and_keeps_its_name(tiny: VLM) -> None:
    broken = Conversation.ask("what", Image(b"no image", "holiday.jpg"))
    found = outcomes(tiny, [*FINE, broken])
    assert isinstance(found[3], BadImage)
    assert "holiday.jpg" in found[3].message
    assert len(texts(found)) == 3


def test_a_request_alone_raises_its_own_error(tiny: VLM) -> None:
    with pytest.raises(SampleError):
        tiny.generate([MARKER], GREEDY)


def test_what_hits_every_request_of_a_kind_is_raised_as_it_is() -> None:
    """Blocks that hooks would miss: a harmless request fails too, so no request is to blame, and the hint is kept."""
    vlm = tiny_vlm()
    vlm.generate([FINE[0]], GREEDY)
    passed_by = replace(vlm, anatomy=replace(vlm.anatomy, blocks=(torch.nn.Identity(),) * 4))
    with pytest.raises(ModelProblem, match="was replaced after the model was loaded") as problem:
        passed_by.generate(FINE, GREEDY)
    assert "Compile each block on its own" in problem.value.hint


def test_a_model_that_fails_throughout_is_told_with_its_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_vlm()

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(type(vlm.model), "forward", broken)
    told = r"The model answers not even a harmless request \(RuntimeError: the device is gone\)"
    with pytest.raises(ModelProblem, match=told) as problem:
        vlm.generate(FINE, GREEDY)
    assert isinstance(problem.value.__cause__, RuntimeError)
    with pytest.raises(ModelProblem, match=told):
        vlm.check_request(Example("any", "one"))


def test_check_request_tells_a_bad_row_from_a_good_one(tiny: VLM) -> None:
    tiny.check_request(Example("good", "one", image=noise_image(16, 1)))
    with pytest.raises(SampleError):
        tiny.check_request(Example("bad", "an <image> marker", image=noise_image(16, 1)))
    with pytest.raises(SampleError, match="the model reads 64"):
        short(64).check_request(Example("long", "a" * 60))


def test_a_row_without_an_image_is_checked_beside_one_too() -> None:
    """Idefics 3 reads control tokens as words until there is an image, which fits add."""
    vlm = family("idefics3")
    vlm.check_request(Example("good", "describe now"))
    with pytest.raises(SampleError, match="refuses these requests"):
        vlm.check_request(Example("bad", "describe <pad> now"))


def test_greedy_decoding_and_draws_leave_the_global_generator_alone(tiny: VLM) -> None:
    state = torch.get_rng_state()
    tiny.generate(FINE, GREEDY)
    tiny.generate(FINE[:1], Sampling(4, temperature=1.0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_tokenizer_without_a_pad_token_is_given_one(tiny: VLM, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"pad_token": "<pad>"', '"pad_token": null'))
    loaded = load(tmp_path)
    assert [r.text for r in loaded.generate(FINE, GREEDY)] == [r.text for r in tiny.generate(FINE, GREEDY)]
