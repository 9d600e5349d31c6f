"""Fair instructions: the exact words that the model is asked, in every style and place, on pictures and on text."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from vlmend.core.conversation import Conversation, Turn
from vlmend.core.examples import Dataset
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter
from vlmend.methods.fairness.fair_instructions import STYLES, FairInstructions, Style
from vlmend.methods.wording import WordsPlace
from vlmend.models.vlm import VLM

NONE = Dataset("none", ())
IMAGE = noise_image(16, 1)


def by_hand(place: str, words: str, image: bool) -> Conversation:
    shown = (IMAGE,) if image else ()
    match place:
        case "before":
            return Conversation((Turn("user", f"{words}\n\nwho is it", shown),))
        case "after":
            return Conversation((Turn("user", f"who is it\n\n{words}", shown),))
        case _:
            return Conversation((Turn("system", words), Turn("user", "who is it", shown)))


@pytest.mark.parametrize("place", get_args(WordsPlace))
@pytest.mark.parametrize("image", [True, False])
def test_the_model_is_asked_what_is_written_by_hand(place: WordsPlace, image: bool, tiny: VLM) -> None:
    view = tiny.with_mend(FairInstructions(place=place, words="Be fair.").fit(tiny, NONE, seed=0))
    asked = Conversation.ask("who is it", IMAGE) if image else Conversation.ask("who is it")
    assert torch.equal(view.logits([asked]), tiny.logits([by_hand(place, "Be fair.", image)]))


def test_styles_are_four_and_own_words_come_first(tiny: VLM) -> None:
    assert set(STYLES) == set(get_args(Style))
    assert len(set(STYLES.values())) == 4
    views = [FairInstructions(style=style).fit(tiny, NONE, seed=0).edits for style in get_args(Style)]
    assert len(set(views)) == 4
    own = FairInstructions(style="check", words="Be fair.").fit(tiny, NONE, seed=0).edits
    assert own == FairInstructions(words="Be fair.").fit(tiny, NONE, seed=0).edits


def test_blank_words_are_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="words is empty"):
        FairInstructions(words="  ").fit(tiny, NONE, seed=0)
