"""text_swap: words worked out by hand, a model that one slip fools, and its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.audit.scripted_dual import ScriptedDual

from vlmend.attacks.robustness.text_swap import TextSwap, swapped
from vlmend.attacks.wording import WordTask, at_random, variants, words_of
from vlmend.audit.suites.robustness.adversarial import SUITE
from vlmend.core.attacks import Budget
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_clip

TRIES = Budget(1 / 255, 40)
ASKED = Example("a", "What bird is that?", answers=("owl",))


def test_one_word_changes_in_every_way() -> None:
    """`bird`: the two inner letters exchanged, or either left out. `dog` is too short for a slip and has a synonym."""
    assert variants("a bird") == ["a brid", "a brd", "a bid"]
    assert variants("Dog.") == ["Hound."]
    assert variants("a 1234 it") == []


def test_words_that_are_changed_already_stay() -> None:
    assert variants("a brid sings", "a bird sings")[0].startswith("a brid s")
    assert all(text.startswith("a brid ") for text in variants("a brid sings", "a bird sings"))


class Weak(WordTask):
    """Its loss is the number of words of the first question that it misses, and it is wrong from two on."""

    def worded(self, row: Example) -> Example:
        return row

    def losses(self, row: Example, texts: Sequence[str]) -> list[float]:
        known = ASKED.prompt.split()
        return [float(sum(word not in known for word in text.split())) for text in texts]

    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        return [loss >= 2 for loss in self.losses(ASKED, [row.prompt for row in rows])]


def test_the_change_with_the_largest_loss_is_made_word_by_word() -> None:
    """One change raises the loss to 1, two to 2: what is kept has as many changed words as are allowed."""
    for words in (1, 2):
        made = swapped(Weak(), ASKED, words, tries=40, seed=0)
        apart = [a != b for a, b in zip(made.row.prompt.split(), ASKED.prompt.split(), strict=True)]
        assert sum(apart) == words
        assert made.forward <= 41


def test_nothing_is_changed_where_the_loss_does_not_grow_or_is_no_number() -> None:
    class Nowhere(Weak):
        def losses(self, row: Example, texts: Sequence[str]) -> list[float]:
            return [0.0 if text == row.prompt else float("nan") for text in texts]

    made = swapped(Nowhere(), ASKED, 2, tries=40, seed=0)
    assert made.row.prompt == ASKED.prompt
    assert made.dropped == made.forward - 1 > 0


@given(st.text("abcdefgh .?", min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 99))
def test_random_changes_keep_to_the_number_of_words(text: str, words: int, seed: int) -> None:
    made = at_random(text, words, seed).split()
    assert sum(a != b for a, b in zip(made, text.split(), strict=True)) <= words


def test_an_attack_that_changes_more_words_than_it_may_is_refused() -> None:
    class Greedy(TextSwap):
        @property
        def words_allowed(self) -> int:
            return 1

    rows = tuple(Example(str(k), "what is that there", image=noise_image(16, k), answers=(f"t{k}",)) for k in range(2))
    with pytest.raises(BadData, match="changed more than 1 words"):
        Greedy(words=3).run(tiny_clip(), Dataset("d", rows), TRIES, seed=0)


def test_the_text_of_its_own_class_is_what_changes_for_a_dual_encoder() -> None:
    """A picture of a bird lies nearest to its text; of the slips only `brd` lies nearer to the text of a bed.

    The suite then reads the same text in the place of the class's own.
    """
    texts = {"a photo of a bird": [1.0, 0.0], "a photo of a bed": [0.6, 0.8], "a photo of a brd": [0.5, 0.87]}
    slips = [text for text in variants("a photo of a bird") if text not in texts]
    known = {text: torch.tensor(value) for text, value in (texts | {slip: [1.0, 0.0] for slip in slips}).items()}
    picture = noise_image(4, 1)
    target = ScriptedDual({picture.digest: torch.tensor([1.0, 0.0])}, known)
    rows = (Example("a", image=picture, answers=("bird",)), Example("b", image=picture, answers=("bed",)))
    made = TextSwap(words=1).run(target, Dataset("d", rows), TRIES, seed=0).examples[0]
    assert made.prompt == "a photo of a brd"
    assert (made.attributes["attacked"], made.attributes["words"], made.attributes["epsilon"]) == ("wrong", "1", "0")
    audited = SUITE.samples(target, Dataset("adv", (replace(made, id="x"), rows[1])), None, seed=0)
    assert {one.group: one.values["accuracy"] for one in audited} == {"text_swap 1 words": 0.0, "clean": 0.0}


def test_a_chat_models_question_changes_and_its_picture_stays(tiny: VLM) -> None:
    row = Example("a", "what is shown there", image=noise_image(16, 3), answers=("cat",))
    made = TextSwap().run(tiny, Dataset("d", (row,)), TRIES, seed=0).examples[0]
    assert made.image == row.image
    assert made.prompt != row.prompt
    assert made.request == row.prompt
    before, after = (float(tiny.logprobs([one.conversation], ["cat"])[0].mean()) for one in (row, made))
    assert after < before


def test_a_budget_without_words_is_refused() -> None:
    with pytest.raises(BadParameter, match="words=0 changes nothing"):
        TextSwap(words=0)


def test_the_texts_of_the_classes_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each row embeds the texts of all classes, again and again. The logits are the model's."""
    target, names = tiny_clip(), [f"thing {k}" for k in range(5)]
    rows = tuple(Example(name, image=noise_image(16, k), answers=(name,)) for k, name in enumerate(names))
    task = words_of(target, Dataset("d", rows))
    row = task.worded(rows[2])
    texts = [f"a photo of a {name}" for name in names]
    wanted = target.logits([noise_image(16, 2)], [*texts[:2], "a phtoo of a thing 2", *texts[3:]])[0]
    assert task.losses(row, ["a phtoo of a thing 2"]) == pytest.approx([float(-wanted.log_softmax(0)[2])], abs=1e-4)
    asked: list[str] = []
    plain = type(target).embed_texts
    monkeypatch.setattr(type(target), "embed_texts", lambda self, given: asked.extend(given) or plain(self, given))
    TextSwap(words=1).run(target, Dataset("d", rows), Budget(4 / 255, 2), seed=0)
    assert max(map(asked.count, texts)) <= 5  # once for all, then for the row of its own
