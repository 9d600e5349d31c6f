"""Greedy replies are the model's own: no setting of a checkpoint changes them, either end token ends them, NaN none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.families import FAMILIES

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem, SampleError
from vlmend.models.checkup.checks import checkup
from vlmend.models.decoding.engine import decode_rows, decode_whole
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

GREEDY = Sampling(max_new_tokens=6)
ASKED = [Conversation.ask("name it", noise_image(16, 3)), Conversation.ask("tell me a story")]
LETTERS = list(range(40, 70))
SETTINGS: dict[str, Any] = {
    "temperature": 0.2, "top_k": 5, "top_p": 0.5, "min_p": 0.4, "typical_p": 0.3, "epsilon_cutoff": 0.1,
    "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "num_beams": 4, "suppress_tokens": LETTERS,
    "begin_suppress_tokens": LETTERS, "bad_words_ids": [[token] for token in LETTERS], "sequence_bias": [[[50], 9.0]],
    "min_length": 60, "min_new_tokens": 5, "forced_bos_token_id": 7, "forced_eos_token_id": 1, "max_length": 5,
    "max_new_tokens": 2, "length_penalty": -5.0, "guidance_scale": 3.0, "encoder_repetition_penalty": 4.0,
    "encoder_no_repeat_ngram_size": 1, "stop_strings": ["a"], "max_time": 1e-4, "prompt_lookup_num_tokens": 3,
    "use_cache": False, "cache_implementation": "static", "exponential_decay_length_penalty": (1, 3.0),
    "watermarking_config": {"bias": 5.0}, "penalty_alpha": 0.6, "num_return_sequences": 3,
    "return_dict_in_generate": True, "token_healing": True, "dola_layers": "low", "num_beam_groups": 2,
}  # fmt: skip
"""What a generation_config.json may hold; each would change greedy replies, or end them with an error."""


def texts(vlm: VLM) -> list[str]:
    return [reply.text for reply in vlm.generate(ASKED, GREEDY)]


@pytest.mark.parametrize("name", ["llava", "mllama", "blip2"])
def test_no_setting_of_a_checkpoint_changes_greedy_replies(name: str) -> None:
    """LLaVA goes through our loop; Mllama, and BLIP-2 by its inner language model, through that of transformers."""
    vlm = FAMILIES[name]()
    wanted = texts(vlm)
    parts = [vlm.model, *([vlm.model.language_model] if name == "blip2" else [])]
    for setting, value in SETTINGS.items():
        for part in parts:
            setattr(part.generation_config, setting, value)
    fresh = FAMILIES[name]()  # whose trial of loops meets the settings too
    for part, other in zip(
        parts, [fresh.model, *([fresh.model.language_model] if name == "blip2" else [])], strict=True
    ):
        other.generation_config = part.generation_config
    assert texts(vlm) == texts(fresh) == wanted
    assert [reply.text for reply in decode_whole(vlm, ASKED, GREEDY)] == wanted


def test_the_settings_of_a_checkpoint_are_put_back() -> None:
    vlm = tiny_vlm()
    own = vlm.model.generation_config
    decode_whole(vlm, ASKED, GREEDY)
    assert vlm.model.generation_config is own


@pytest.mark.parametrize("loop", [decode_whole, lambda vlm, *asked: decode_rows([vlm] * 2, *asked)])
def test_both_end_tokens_end_a_reply(loop: Any) -> None:
    """A head that always says token 1: the tokenizer's <eos>, while the settings end a reply at token 2."""
    vlm = tiny_vlm()
    vlm.model.generation_config.eos_token_id = [2]
    for token in (1, 2):
        saying(vlm, token)
        assert {(reply.stop, reply.new_tokens) for reply in loop(vlm, ASKED, GREEDY)} == {("stop", 1)}
    saying(vlm, 40)
    assert {(reply.stop, reply.new_tokens) for reply in loop(vlm, ASKED, GREEDY)} == {("length", 6)}


def test_doctor_tells_end_tokens_that_differ() -> None:
    vlm = tiny_vlm()
    same = finding(vlm, "end tokens")
    vlm.model.generation_config.eos_token_id = 2
    assert (same.ok, finding(vlm, "end tokens").ok) == (True, False)
    assert "generation_config ends a reply at 2, the tokenizer at 1" in finding(vlm, "end tokens").value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_one_error_with_the_way_out(value: float) -> None:
    vlm = tiny_vlm()
    spoil(vlm, value)
    for use in (
        lambda: vlm.generate(ASKED, GREEDY),
        lambda: decode_whole(vlm, ASKED, GREEDY),
        lambda: vlm.generate(ASKED, Sampling(4, temperature=1.0)),
        lambda: vlm.logits(ASKED),
        lambda: vlm.hidden(ASKED, [Site("language", 0)]),
    ):
        with pytest.raises(ModelProblem, match="NaN or infinite") as problem:
            use()
        assert "--dtype bfloat16 or float32" in problem.value.hint


def test_one_request_that_overflows_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_vlm()
    token = vlm.processor.tokenizer.convert_tokens_to_ids("~")

    def overflow(module: object, given: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        rows = (kwargs["input_ids"] == token).any(1)
        out.logits[rows] = float("nan")
        return out

    vlm.model.register_forward_hook(overflow, with_kwargs=True)
    with pytest.raises(SampleError, match="NaN or infinite"):
        vlm.generate([Conversation.ask("a~")], GREEDY)
    assert texts(vlm) == texts(tiny_vlm())


def test_doctor_passes_no_comparison_with_nan() -> None:
    vlm = tiny_vlm()
    spoil(vlm, float("nan"))
    live = [one for one in checkup(vlm) if one.part in ("live", "supported")]
    compared = {"images change the answer", "batch and single agree", "same greedy tokens", "hooks fire"}
    assert {one.name: one.ok for one in live if one.name in compared} == dict.fromkeys(compared, False)
    assert not any("nan" in one.value for one in live)


def finding(vlm: VLM, name: str) -> Any:
    return next(one for one in checkup(vlm) if one.name == name)


def saying(vlm: VLM, token: int) -> None:
    """Every reply begins with this token: the state before the head is made one, and so is its row of the head."""
    head = vlm.model.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()
        head.weight[token] = 1.0
    for handle in getattr(head, "_forward_pre_hooks", {}).copy():
        del head._forward_pre_hooks[handle]
    head.register_forward_pre_hook(lambda module, given: (torch.ones_like(given[0]),))


def spoil(vlm: VLM, value: float) -> None:
    """As float16 that overflows: every logit of the head is no number."""
    vlm.model.get_output_embeddings().register_forward_hook(lambda module, given, out: out + value)
