"""In-context examples: the turns that the model is asked, balance, controls, and that none shows its own answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.conversation import Conversation, Turn
from vlmend.core.edits import ShowExamples
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.in_context_examples import InContextExamples
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

IMAGE = noise_image(16, 99)
ASKED = Conversation.ask("what is it", IMAGE)
FAKE = ScriptedTarget(lambda conversation, mended: "")


def rows(count: int, answers: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    return Dataset("pets", tuple(
        Example(str(k), f"q{k}", image=noise_image(16, k), answers=(answers[k % len(answers)],), caption=f"c{k}")
        for k in range(count)
    ))  # fmt: skip


def edit_of(method: InContextExamples, tiny: VLM, data: Dataset, seed: int = 0) -> ShowExamples:
    (edit,) = method.fit(tiny, data, seed=seed).edits
    assert isinstance(edit, ShowExamples)
    return edit


def test_the_model_is_asked_the_examples_and_then_the_request(tiny: VLM) -> None:
    mend = InContextExamples(examples=2).fit(tiny, rows(2), seed=0)
    (edit,) = mend.edits
    assert isinstance(edit, ShowExamples)
    order = [int(prompt[1:]) for prompt in edit.prompts]
    assert sorted(order) == [0, 1]
    by_hand = Conversation((
        Turn("system", "Be kind."),
        *(turn for k in order for turn in (Turn("user", f"q{k}", (noise_image(16, k),)),
                                           Turn("assistant", ("cat", "dog")[k]))),
        Turn("user", "what is it", (IMAGE,)),
    ))  # fmt: skip
    asked = Conversation((Turn("system", "Be kind."), Turn("user", "what is it", (IMAGE,))))
    assert torch.equal(tiny.with_mend(mend).logits([asked]), tiny.logits([by_hand]))


def test_no_examples_are_zero_shot_bit_for_bit(tiny: VLM) -> None:
    view = tiny.with_mend(InContextExamples(examples=0).fit(tiny, rows(2), seed=0))
    assert torch.equal(view.logits([ASKED]), tiny.logits([ASKED]))


def test_requests_without_an_image_stay(tiny: VLM) -> None:
    view = tiny.with_mend(InContextExamples(examples=2).fit(tiny, rows(2), seed=0))
    assert view.rewritten([Conversation.ask("hi")]) == [Conversation.ask("hi")]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_answers_are_balanced(examples: int, seed: int) -> None:
    """Of 6 cats, 3 dogs and 3 cows no answer is shown two times more often than another while there are three."""
    data = rows(12, ("cat", "dog", "cat", "cow"))
    (edit,) = InContextExamples(examples=examples).learn(FAKE, data, seed=seed).edits
    assert isinstance(edit, ShowExamples)
    counts = Counter(edit.replies)
    assert sum(counts.values()) == examples
    assert max(counts.values(), default=0) - min((counts[one] for one in ("cat", "dog", "cow")), default=0) <= 1


def test_random_labels_are_the_same_pictures_with_other_replies(tiny: VLM) -> None:
    data = rows(40)
    right = edit_of(InContextExamples(examples=20), tiny, data)
    random = edit_of(InContextExamples(examples=20, labels="random"), tiny, data)
    assert right.prompts == random.prompts
    assert right.replies != random.replies
    assert set(random.replies) <= {"cat", "dog"}


def test_each_seed_shows_others_in_another_order(tiny: VLM) -> None:
    data = rows(40)
    assert len({edit_of(InContextExamples(), tiny, data, seed).prompts for seed in range(8)}) == 8


def test_a_request_is_never_its_own_example() -> None:
    edit = ShowExamples(("a", "b"), ("cat", "dog"), (IMAGE, noise_image(16, 1)))
    assert [turn.text for turn in edit.put(ASKED).turns] == ["b", "dog", "what is it"]


def test_captions_stand_in_the_place_of_pictures(tiny: VLM) -> None:
    edit = edit_of(InContextExamples(examples=2, pictures=False), tiny, rows(2))
    assert edit.images == ()
    assert sorted(edit.prompts) == ["c0\nq0", "c1\nq1"]
    bare = tuple(replace(row, caption=None) for row in rows(2).examples)
    with pytest.raises(BadData, match="0 rows that can be shown"):
        InContextExamples(examples=2, pictures=False).fit(tiny, Dataset("bare", bare), seed=0)


@pytest.mark.parametrize("examples", [-1, 65])
def test_odd_counts_are_refused(examples: int, tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="cannot be shown"):
        InContextExamples(examples=examples).fit(tiny, rows(2), seed=0)


def test_harmful_rows_are_not_shown(tiny: VLM) -> None:
    harmful = tuple(replace(row, label="harmful") for row in rows(4).examples)
    with pytest.raises(BadData, match="0 rows"):
        InContextExamples(examples=1).fit(tiny, Dataset("bad", harmful), seed=0)


def test_examples_whose_parts_do_not_match_are_refused() -> None:
    with pytest.raises(BadParameter, match="2 questions, 1 replies and 0 pictures"):
        ShowExamples(("a", "b"), ("c",))
