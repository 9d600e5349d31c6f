"""PBM: balance worked out by hand, the order within a group, named queries, and groups that run out."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.dual_edits import Rerank
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image, noise_image
from vlmend.core.metrics.skew import bias_at
from vlmend.errors import BadData
from vlmend.methods.fairness.pbm import Pbm
from vlmend.models.editing.embeddings import dealt, reranked
from vlmend.testing import tiny_clip

IMAGES = [*(noise_image(16, k) for k in range(6)), *(blank_image(16, value) for value in range(0, 150, 30))]


@given(st.integers(0, 10_000), st.integers(1, 20))
def test_perfect_labels_and_enough_of_each_leave_no_bias_at_any_even_k(seed: int, each: int) -> None:
    rng = random.Random(seed)
    groups = [0, 1] * each
    rng.shuffle(groups)
    order = rng.sample(range(2 * each), 2 * each)
    names = [("man", "woman")[groups[place]] for place in dealt(order, groups, rng)]
    assert all(bias_at(names, k, "man", "woman") == 0 for k in range(2, 2 * each + 1, 2))
    assert all(abs(bias_at(names, k, "man", "woman")) <= 1 / k + 1e-9 for k in range(1, 2 * each, 2))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 10_000))
def test_every_image_comes_once_and_each_group_keeps_its_order(groups: list[int], seed: int) -> None:
    order = random.Random(seed).sample(range(len(groups)), len(groups))
    found = dealt(order, groups, random.Random(seed + 1))
    assert sorted(found) == sorted(order)
    for group in set(groups):
        assert [place for place in found if groups[place] == group] == [p for p in order if groups[p] == group]


def test_when_a_group_has_run_out_the_others_go_on() -> None:
    """Places 0 to 5 in order, place 3 alone of group 1: 0 and 3 share the first round, then 1, 2, 4, 5."""
    found = dealt([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 0, 0], random.Random(0))
    assert set(found[:2]) == {0, 3}
    assert found[2:] == [1, 2, 4, 5]


def test_who_comes_first_in_a_round_is_drawn_from_the_words_of_the_query() -> None:
    edit = Rerank(("a", "b"), ("x", "y"))
    groups = [0, 1] * 200
    found = reranked(edit, "a cook", list(range(400)), groups)
    assert found == reranked(edit, "a cook", list(range(400)), groups)
    assert found != reranked(edit, "a nurse", list(range(400)), groups)
    first = sum(groups[place] == 0 for place in found[::2])
    assert 70 < first < 130  # 200 rounds, fair coins: 100, standard deviation 7


@pytest.mark.parametrize(("text", "kept"), [
    ("a photo of a woman", True), ("A WOMAN, cooking", True), ("her kitchen", True), ("a photo of a cook", False),
    ("a womanly cook", False),
])  # fmt: skip
def test_a_query_that_names_a_group_keeps_its_order(text: str, kept: bool) -> None:
    (edit,) = Pbm().fit(tiny_clip(), Pbm().builtin(), seed=0).edits
    assert isinstance(edit, Rerank)
    order, groups = [4, 3, 2, 1, 0, 5], [0, 0, 0, 0, 0, 1]
    assert (reranked(edit, text, order, groups) == order) == kept


def test_the_encoder_itself_tells_the_groups() -> None:
    target = tiny_clip()
    prompts = ["red sky", "zz"]
    data = Dataset("d", tuple(Example(text, text, group=text.split()[-1]) for text in prompts))
    mended = target.with_mend(Pbm().fit(target, data, seed=0))
    groups = (target.embed_images(IMAGES) @ target.embed_texts(prompts).T).argmax(1).tolist()
    assert set(groups) == {0, 1}
    (plain,), (found,) = target.retrieve(["a cook"], IMAGES), mended.retrieve(["a cook"], IMAGES)
    assert list(found) == dealt(plain, groups, random.Random("rerank:a cook"))
    assert found != plain
    assert mended.retrieve(["a sky"], IMAGES) == target.retrieve(["a sky"], IMAGES)


def test_embeddings_and_logits_stay_as_they_are() -> None:
    target = tiny_clip()
    mended = target.with_mend(Pbm().fit(target, Pbm().builtin(), seed=0))
    assert torch.equal(mended.logits(IMAGES, ["a cook"]), target.logits(IMAGES, ["a cook"]))


def test_one_group_alone_and_two_prompts_for_a_group_are_refused() -> None:
    rows = (
        Example("a", "a man", group="man"),
        Example("b", "a woman", group="woman"),
        Example("c", "a guy", group="man"),
    )
    for some, message in ((rows[:1], "1 prompts for 1 groups"), (rows, "3 prompts for 2 groups")):
        with pytest.raises(BadData, match=message):
            Pbm().fit(tiny_clip(), Dataset("d", some), seed=0)
