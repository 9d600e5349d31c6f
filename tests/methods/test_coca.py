"""CoCA against its formula, from plain calls and a slow loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter
from vlmend.methods.safety.coca import CoCA
from vlmend.models.vlm import VLM

DATA = Dataset("d", (Example("0", "hello", "harmful"),))
BATCH = [Conversation.ask(words, noise_image(16, k)) for k, words in enumerate(("what is it", "a longer question"))]
GUIDED = [
    Conversation.ask(f"Do no harm.\n\n{c.prompt}", noise_image(16, k)) for k, c in enumerate(BATCH)
]  # the principle before the request, by hand


def view_of(tiny: VLM, alpha: float) -> VLM:
    return tiny.with_mend(CoCA(alpha=alpha, principle="Do no harm.").fit(tiny, DATA, seed=0))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_logits_are_those_with_principle_plus_alpha_times_the_difference(alpha: float, tiny: VLM) -> None:
    l_0, l_s = tiny.logits(BATCH), tiny.logits(GUIDED)
    torch.testing.assert_close(view_of(tiny, alpha).logits(BATCH), l_s + alpha * (l_s - l_0), atol=1e-5, rtol=0)


def test_alpha_one_doubles_the_step_from_plain_to_guided(tiny: VLM) -> None:
    """l_0 = 1 and l_s = 3 give 3 + 1 (3 - 1) = 5 = 1 + 2 (3 - 1): the edit's strength is 2."""
    (edit,) = CoCA(alpha=1.0).fit(tiny, DATA, seed=0).edits
    assert edit.strength == 2.0  # type: ignore[union-attr]
    l_0, l_s = 1.0, 3.0
    assert l_0 + edit.strength * (l_s - l_0) == 5.0  # type: ignore[union-attr]


def test_alpha_minus_one_is_the_base_bit_for_bit(tiny: VLM) -> None:
    assert torch.equal(view_of(tiny, -1.0).logits(BATCH), tiny.logits(BATCH))


def next_logits(tiny: VLM, asked: Conversation, tokens: list[int]) -> Tensor:
    """Logits after the prompt and these tokens, by one plain call of the model without cache."""
    inputs = tiny.reader.inputs([asked])
    new = torch.tensor([tokens], dtype=torch.long)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(new)], dim=1)
    with torch.inference_mode():
        return tiny.model(**inputs, use_cache=False).logits[0, -1]


def test_greedy_decoding_is_the_slow_loop(tiny: VLM) -> None:
    replies = view_of(tiny, 1.0).generate(BATCH, Sampling(max_new_tokens=12))
    for plain, guided, reply in zip(BATCH, GUIDED, replies, strict=True):
        tokens: list[int] = []
        while len(tokens) < 12 and 1 not in tokens:  # 1 ends a reply
            l_0, l_s = next_logits(tiny, plain, tokens), next_logits(tiny, guided, tokens)
            tokens.append(int((l_s + 1.0 * (l_s - l_0)).argmax()))
        assert reply.text == tiny.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert reply.new_tokens == len(tokens)
    base = tiny.generate(BATCH, Sampling(max_new_tokens=12))
    assert [reply.text for reply in replies] != [reply.text for reply in base]


def test_text_rows_of_a_mixed_batch_keep_their_logits(tiny: VLM) -> None:
    batch = [Conversation.ask("hi"), *BATCH]
    mended, base = view_of(tiny, 1.0).logits(batch), tiny.logits(batch)
    torch.testing.assert_close(mended[0], base[0], atol=1e-5, rtol=0)
    assert (mended[1:] - base[1:]).abs().amax(1).min() > 1e-3


def test_no_principle_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="principle is empty"):
        CoCA(principle="").fit(tiny, DATA, seed=0)
