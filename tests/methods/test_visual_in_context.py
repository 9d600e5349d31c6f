"""Visual in-context learning: which examples are shown, in what words, and never the request's own picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import ShowNearest
from vlmend.core.example_edits import alike
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter, ModelProblem
from vlmend.methods.robustness.visual_in_context import VisualInContext
from vlmend.models.vlm import VLM

SITE = Site("language", 1)
IMAGE = noise_image(16, 3)
ASKED = Conversation.ask("what is it", IMAGE)


def rows(count: int) -> Dataset:
    return Dataset("pets", tuple(
        Example(str(k), f"q{k}", image=noise_image(16, k), answers=(("cat", "dog")[k % 2],)) for k in range(count)
    ))  # fmt: skip


def edit_of(method: VisualInContext, tiny: VLM, count: int = 6, seed: int = 0) -> ShowNearest:
    (edit,) = method.fit(tiny, rows(count), seed=seed).edits
    assert isinstance(edit, ShowNearest)
    return edit


def by_hand(near: int, keep: int, **more) -> ShowNearest:  # type: ignore[no-untyped-def]
    """Pictures at 0, 30, 60, 90 and 180 degrees of the first axis."""
    degrees = torch.tensor([0.0, 30.0, 60.0, 90.0, 180.0]).deg2rad()
    captions = ("a cup", "a dog", "a red cat", "a cat", "a cat in the rain")
    return ShowNearest(
        SITE, torch.stack([degrees.cos(), degrees.sin()], 1), captions, tuple("abcde"), tuple("01234"), "?", near, keep,
        **more,
    )  # fmt: skip


def test_states_retrieve_and_captions_choose_the_most_alike_last() -> None:
    """Nearest to 0 degrees are 0, 1, 2; of these "a cat" shares most words with 2, then 0 and 1 alike."""
    state = torch.tensor([2.0, 0.0])
    assert by_hand(3, 3).chosen(state, "a cat", {"z"}) == (1, 0, 2)
    assert by_hand(3, 1).chosen(state, "a cat", {"z"}) == (2,)
    assert by_hand(4, 2).chosen(state, "a cat", {"z"}) == (2, 3)
    assert by_hand(1, 1).chosen(state, "a cat", {"z"}) == (0,)


@given(st.permutations("abcde"), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["likeness", "random"]))
def test_shown_are_some_of_the_near_and_never_the_own_picture(
    digests: list[str], near: int, keep: int, choice: str
) -> None:
    edit = replace(by_hand(near, min(near, keep), choice=choice), digests=tuple(digests))
    shown = edit.chosen(torch.tensor([1.0, 0.0]), "a cat", {"c"})
    wide = replace(by_hand(near, near), digests=tuple(digests)).chosen(torch.tensor([1.0, 0.0]), "a cat", {"c"})
    assert len(shown) == len(set(shown)) == min(4, near, keep)
    assert digests.index("c") not in shown
    assert choice == "random" or set(shown) <= set(wide)


def test_random_examples_follow_from_picture_and_seed() -> None:
    state = torch.tensor([1.0, 0.0])
    drawn = {(k, seed): by_hand(2, 2, choice="random", seed=seed).chosen(state, "", {f"{k}"}) for k in range(5)
             for seed in range(2)}  # fmt: skip
    assert len(set(drawn.values())) > 4
    assert drawn[3, 1] == by_hand(2, 2, choice="random", seed=1).chosen(state, "a cat", {"3"})


def test_likeness_of_captions_is_the_cosine_of_their_counts() -> None:
    assert alike("A cat, a dog", "a cat") == pytest.approx(3 / (6**0.5 * 2**0.5))
    assert alike("a cat", "two dogs") == alike("", "a") == 0


def test_the_model_is_asked_the_chosen_examples_and_then_the_request(tiny: VLM) -> None:
    method = VisualInContext(examples=2, near=3, form="[{summary}|{question}|{answer}]", summary="", intent="so ")
    edit = edit_of(method, tiny)
    asked = Conversation.ask(method.caption, IMAGE)
    state = tiny.hidden([asked], [edit.site])[edit.site][0]
    chosen = edit.chosen(state, "", {IMAGE.digest})
    view = tiny.with_mend(method.fit(tiny, rows(6), seed=0))
    (told,) = view.rewritten([ASKED])
    assert 3 not in chosen
    assert told.images == (IMAGE,)
    assert told.prompt.startswith("so [")
    assert told.prompt.endswith("]what is it")
    assert told.prompt.count("|q") == 2
    assert torch.equal(view.logits([ASKED]), tiny.logits([told]))


def test_the_summary_is_asked_with_the_answer_and_the_picture(tiny: VLM) -> None:
    """The texts hold what the model says to the words of `summary`, asked by hand."""
    method = VisualInContext(examples=1, near=1, pool=2, summary="{question} {answer}?", form="{summary}")
    edit = edit_of(method, tiny, 2)
    asked = [Conversation.ask(f"q{k} {('cat', 'dog')[k]}?", noise_image(16, k)) for k in range(2)]
    assert edit.told == tuple(reply.text for reply in tiny.generate(asked, Sampling(32)))


def test_no_examples_are_zero_shot_bit_for_bit(tiny: VLM) -> None:
    view = tiny.with_mend(VisualInContext(examples=0).fit(tiny, rows(2), seed=0))
    assert view.rewritten([ASKED]) == [ASKED]
    assert torch.equal(view.logits([ASKED]), tiny.logits([ASKED]))


def test_requests_without_an_image_stay(tiny: VLM) -> None:
    view = tiny.with_mend(VisualInContext(examples=1, near=1).fit(tiny, rows(2), seed=0))
    assert view.rewritten([Conversation.ask("hi"), ASKED])[0] == Conversation.ask("hi")


def test_random_labels_are_the_same_pictures_with_other_answers(tiny: VLM) -> None:
    words = VisualInContext(examples=1, form="{answer}", summary="")
    right = edit_of(words, tiny, 20)
    drawn = edit_of(replace(words, labels="random"), tiny, 20)
    assert right.told == ("cat", "dog") * 10
    assert right.digests == drawn.digests
    assert drawn.told != right.told
    assert set(drawn.told) <= {"cat", "dog"}


@pytest.mark.parametrize("wrong", [
    {"examples": -1}, {"examples": 5, "near": 4}, {"near": 8, "pool": 7}, {"layer": 99}, {"summary": "{picture}"},
    {"form": "{"},
])  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, object], tiny: VLM) -> None:
    with pytest.raises(BadParameter):
        VisualInContext(**wrong).fit(tiny, rows(8), seed=0)  # type: ignore[arg-type]


def test_harmful_rows_are_not_shown(tiny: VLM) -> None:
    harmful = tuple(replace(row, label="harmful") for row in rows(4).examples)
    with pytest.raises(BadData, match="0 rows"):
        VisualInContext(examples=1).fit(tiny, Dataset("bad", harmful), seed=0)


def test_gradients_do_not_pass_it(tiny: VLM) -> None:
    view = tiny.with_mend(VisualInContext(examples=1, near=1).fit(tiny, rows(2), seed=0))
    with pytest.raises(ModelProblem, match="ShowNearest"):
        view.reply_loss([ASKED], ["a cat"], view.pixels([IMAGE]))


@settings(deadline=None, max_examples=20)
@given(st.text("ab "), st.text("ab "))
def test_likeness_is_the_same_both_ways(one: str, other: str) -> None:
    assert alike(one, other) == pytest.approx(alike(other, one))
    assert 0 <= alike(one, other) <= 1 + 1e-9
