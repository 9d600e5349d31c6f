"""The harm judge over a tiny random guard model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from vlmend import registry
from vlmend.audit.judges.harm import HarmJudge
from vlmend.core.images import Image
from vlmend.core.verdicts import Exchange, Judge, Verdict
from vlmend.errors import ModelProblem, UnknownName, UsageError
from vlmend.models.judging.families import FAMILIES
from vlmend.models.judging.guard import Guard
from vlmend.testing import tiny_tokenizer

BREAD = Exchange("How do I bake bread?", "Mix flour and water.")
TEMPLATE = (
    "{{ bos_token }}First line must read 'safe' or 'unsafe'.{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} "
    "{% endfor %}<|end_header_id|>"
)


def tiny_guard(bias: float = 0.0, seed: int = 0) -> Guard:
    """A random Llama of one token a character; `bias` is added to the logit of "u", the first of "unsafe"."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>", "additional_special_tokens": ["<|end_header_id|>"]})
    tokenizer.chat_template = TEMPLATE
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=1,
        )
    )  # fmt: skip
    head = nn.Linear(16, len(tokenizer))
    head.weight.data.copy_(model.lm_head.weight.data)
    head.bias.data.zero_()
    head.bias.data[tokenizer.convert_tokens_to_ids("u")] = bias
    model.lm_head = head
    return Guard(FAMILIES["llama-guard-3"], "tiny", model, tokenizer)


def judge(bias: float = 0.0, seed: int = 0) -> HarmJudge:
    return HarmJudge("llama-guard-3@tiny", lambda: tiny_guard(bias, seed))


def judged(exchange: Exchange, bias: float = 0.0) -> Verdict:
    return judge(bias).judge([exchange])[0]


def test_it_keeps_the_contract_of_a_judge() -> None:
    one = judge()
    assert isinstance(one, Judge)
    assert (one.id, one.kind) == ("harm-1:llama-guard-3@tiny", "harm")


def test_the_label_follows_the_probability() -> None:
    harmful, harmless = judged(BREAD, 5.0), judged(BREAD, -5.0)
    assert (harmful.label, harmless.label) == ("harmful", "harmless")
    assert harmful.scores["harmful"] >= 0.5 > harmless.scores["harmful"]


def test_the_reason_tells_the_probability() -> None:
    verdict = judged(BREAD, 5.0)
    assert verdict.reason == f"{verdict.scores['harmful']:.0%} harmful"


def test_the_score_is_the_guards_probability() -> None:
    assert judged(BREAD).scores["harmful"] == round(tiny_guard().read([BREAD])[0].harmful, 4)


@pytest.mark.parametrize("reply", ["", "  \n "])
def test_empty_replies_are_unscored(reply: str) -> None:
    assert judged(Exchange("Hello?", reply)) == Verdict("unscored", "no words")


def test_logits_that_are_not_numbers_are_unscored() -> None:
    verdict = judged(BREAD, math.nan)
    assert verdict.label == "unscored"
    assert "not numbers" in verdict.reason


def test_verdicts_keep_the_order_of_the_exchanges() -> None:
    exchanges = [BREAD, Exchange("Hello?", ""), Exchange("A much longer request than that?", "Yes. " * 9)]
    together = judge().judge(exchanges)
    assert together[1].label == "unscored"
    for place in (0, 2):
        assert together[place].scores["harmful"] == pytest.approx(judged(exchanges[place]).scores["harmful"], abs=1e-4)


def test_a_guard_of_words_does_not_open_the_image() -> None:
    broken = Exchange(BREAD.prompt, BREAD.reply, Image(b"no image"))
    assert judged(broken).scores == judged(BREAD).scores


def test_a_broken_image_is_unscored_for_a_guard_that_sees() -> None:
    guard = tiny_guard()
    guard.family = FAMILIES["llama-guard-4"]
    verdict = HarmJudge("x", lambda: guard).judge([Exchange(BREAD.prompt, BREAD.reply, Image(b"no image", "a.png"))])[0]
    assert verdict.label == "unscored"
    assert "a.png" in verdict.reason


def test_the_digest_tells_two_guards_apart_and_stays() -> None:
    assert judge().digest == judge().digest
    assert judge().digest != judge(seed=1).digest


def test_the_weights_are_loaded_once_and_not_before_they_are_needed() -> None:
    loads: list[Guard] = []
    one = HarmJudge("tiny", lambda: loads.append(tiny_guard()) or loads[-1])
    assert not loads
    one.judge([BREAD])
    one.judge([BREAD])
    assert one.digest
    assert len(loads) == 1


def test_the_command_line_names_it(tmp_path: Path) -> None:
    LlamaConfig(vocab_size=10, hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    assert registry.make_judge(f"harm:wildguard@{tmp_path}").id == f"harm-1:wildguard@{tmp_path}"


def test_what_cannot_be_a_guard_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a guard model"):
        registry.make_judge("harm")
    with pytest.raises(UnknownName, match="Families: llama-guard-3-vision"):
        registry.make_judge("harm:some/model")
    with pytest.raises(ModelProblem, match="no such folder"):
        registry.make_judge(f"harm:wildguard@{tmp_path / 'nothing'}")
