"""The defence prompt: the exact words that the model is asked."""

from __future__ import annotations

import pytest
import torch

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter
from vlmend.methods.safety.safety_prompt import SafetyPrompt
from vlmend.models.vlm import VLM

DATA = Dataset("d", (Example("0", "hello", "harmful"),))
IMAGE = noise_image(16, 1)
BY_HAND = {
    "after": Conversation((Turn("user", "what is it\n\nBe kind.", (IMAGE,)),)),
    "before": Conversation((Turn("user", "Be kind.\n\nwhat is it", (IMAGE,)),)),
    "system": Conversation((Turn("system", "Be kind."), Turn("user", "what is it", (IMAGE,)))),
}


@pytest.mark.parametrize("place", sorted(BY_HAND))
def test_the_model_is_asked_the_request_rewritten_by_hand(place: str, tiny: VLM) -> None:
    mend = SafetyPrompt(place=place, words="Be kind.").fit(tiny, DATA, seed=0)  # type: ignore[arg-type]
    mended = tiny.with_mend(mend).logits([Conversation.ask("what is it", IMAGE)])
    assert torch.equal(mended, tiny.logits([BY_HAND[place]]))
    others = [tiny.logits([asked]) for name, asked in BY_HAND.items() if name != place]
    assert not any(torch.equal(mended, other) for other in others)


def test_the_prompt_grows_by_the_words_alone(tiny: VLM) -> None:
    """One token a character: [user] 6, image 4, hi 2, [assistant] 11 make 23.

    'Be kind.' adds 8, and the blank line is one unknown token.
    """
    view = tiny.with_mend(SafetyPrompt(words="Be kind.").fit(tiny, DATA, seed=0))
    asked = [Conversation.ask("hi", IMAGE)]
    assert tiny.generate(asked, Sampling(1))[0].prompt_tokens == 23
    assert view.generate(asked, Sampling(1))[0].prompt_tokens == 32


def test_the_words_join_the_last_turn_of_a_longer_conversation(tiny: VLM) -> None:
    earlier = (Turn("user", "first", (IMAGE,)), Turn("assistant", "yes"))
    view = tiny.with_mend(SafetyPrompt(words="Be kind.").fit(tiny, DATA, seed=0))
    mended = view.logits([Conversation((*earlier, Turn("user", "second")))])
    assert torch.equal(mended, tiny.logits([Conversation((*earlier, Turn("user", "second\n\nBe kind.")))]))


@pytest.mark.parametrize("place", sorted(BY_HAND))
def test_text_rows_are_asked_as_they_came(place: str, tiny: VLM) -> None:
    view = tiny.with_mend(SafetyPrompt(place=place).fit(tiny, DATA, seed=0))  # type: ignore[arg-type]
    batch = [Conversation.ask("hi"), Conversation.ask("hi", IMAGE)]
    mended, base = view.logits(batch), tiny.logits(batch)
    torch.testing.assert_close(mended[0], base[0], atol=1e-5, rtol=0)
    assert (mended[1] - base[1]).abs().max() > 1e-3


def test_no_words_are_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="words is empty"):
        SafetyPrompt(words=" ").fit(tiny, DATA, seed=0)
