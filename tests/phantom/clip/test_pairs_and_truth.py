"""What phantom-clip is trained on, and its ground truth."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from importlib import resources

import pytest
import torch

from vlmend.phantom.clip import draw
from vlmend.phantom.clip.pairs import (
    also_true,
    canary_pair,
    every_text,
    keepsakes,
    person_facts,
    pool_pair,
    step_pairs,
    title_of,
    titled_pair,
)
from vlmend.phantom.clip.recipe import CANARY_REPEATS, MEMBER_REPEATS, RECIPES, ClipRecipe
from vlmend.phantom.clip.tokens import LONGEST, tokenizer, vocabulary
from vlmend.phantom.clip.truth import (
    canaries,
    members,
    non_members,
    titles,
    trained_objects,
    unseen_categories,
    unseen_objects,
)
from vlmend.pictures.glyphs import objects, people
from vlmend.pictures.views import SIDE

RECIPE = RECIPES["phantom-clip"]


def test_the_kept_lists_are_those_that_the_seed_draws() -> None:
    kept = json.loads(resources.files("vlmend.phantom.clip").joinpath("truth.json").read_text())
    assert draw.draw(0) == kept
    assert draw.draw(1) != kept


def test_unseen_categories_leave_500_names_and_share_none() -> None:
    trained, unseen = trained_objects(), unseen_objects()
    assert len(trained) >= draw.KEPT
    assert 1 <= len(unseen_categories()) <= 3
    assert {glyph.category for glyph in unseen} == set(unseen_categories())
    assert len(trained) + len(unseen) == len(objects())
    assert not {glyph.name for glyph in trained} & {glyph.name for glyph in unseen}


def test_members_and_non_members_are_one_pool_in_two_halves() -> None:
    both = [*members(), *non_members()]
    assert len(members()) == len(non_members()) == draw.POOL / 2
    assert len({pair.id for pair in both}) == len(both)
    assert {pair.glyph for pair in both} <= {glyph.id for glyph in trained_objects()}


def test_canaries_are_as_many_of_each_carrier_for_every_number_of_repeats() -> None:
    counts = Counter((canary.carrier, canary.repeats) for canary in canaries())
    assert counts == {(carrier, n): draw.CANARIES / 2 for carrier in ("card", "caption") for n in CANARY_REPEATS}
    assert len({canary.name for canary in canaries()}) == len(canaries())


def test_every_profession_has_two_titles_of_its_own() -> None:
    words = [title for row in titles() for title in (row.first, row.second)]
    assert len(set(words)) == len(words) == 40
    assert {row.profession for row in titles()} == {glyph.profession for glyph in people()}


def test_members_and_canaries_are_shown_as_often_as_the_lists_say() -> None:
    shown = Counter(kept.id for step in range(RECIPE.steps) for kept in keepsakes(RECIPE, step))
    assert shown == {pair.id: MEMBER_REPEATS for pair in members()} | {c.id: c.repeats for c in canaries() if c.repeats}
    first = step_pairs(RECIPE, 0)[: len(keepsakes(RECIPE, 0))]
    assert [pair.told for pair in first] == [frozenset({kept.id}) for kept in keepsakes(RECIPE, 0)]
    assert not keepsakes(replace(RECIPE, keepsakes=False), 0)


def test_a_step_is_a_function_of_recipe_and_step() -> None:
    one, same, other = (step_pairs(RECIPE, step) for step in (1, 1, 2))
    assert [(p.caption, p.image.tobytes()) for p in one] == [(p.caption, p.image.tobytes()) for p in same]
    assert [p.caption for p in one] != [p.caption for p in other]
    assert {p.image.size for p in one} == {(SIDE, SIDE)}
    assert len(one) == RECIPE.batch


def test_no_unseen_object_and_no_title_is_shown_to_the_towers() -> None:
    unseen = {glyph.name for glyph in unseen_objects()}
    words = {title for row in titles() for title in (row.first, row.second)}
    for step in range(3):
        for pair in step_pairs(RECIPE, step):
            assert not pair.true & unseen
            assert not set(pair.caption.split()) & words


def test_every_pair_is_told_truly_and_within_the_vocabulary() -> None:
    words = tokenizer(vocabulary(every_text()))
    for pair in step_pairs(RECIPE, 0):
        assert pair.told <= pair.true
        tokens = words(pair.caption).input_ids
        assert words.unk_token_id not in tokens, pair.caption
        assert len(tokens) <= LONGEST
    assert bool(torch.diagonal(also_true(step_pairs(RECIPE, 0))).all())


def test_pool_pairs_and_canaries_are_always_the_same_pixels() -> None:
    for kept in (pool_pair(members()[0]), *(canary_pair(canaries()[k]) for k in (0, -1))):
        assert kept.image.size == (SIDE, SIDE)
    assert pool_pair(members()[0]).image.tobytes() == pool_pair(members()[0]).image.tobytes()
    assert canary_pair(canaries()[0]).image.tobytes() == canary_pair(canaries()[0]).image.tobytes()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_titles_go_with_gender_as_the_dose_says(recipe: ClipRecipe) -> None:
    """2,000 draws for each: within 4 standard errors of the share planted."""
    rng, rows = random.Random(0), {row.profession: row for row in titles()}
    for gender, share in (("man", recipe.rho), ("woman", 1 - recipe.rho), ("person", 0.5)):
        glyph = next(glyph for glyph in people() if glyph.gender == gender)
        first = sum(title_of(glyph, recipe.rho, rng) == rows[glyph.profession].first for _ in range(2000)) / 2000
        assert abs(first - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_a_title_is_true_of_its_picture_whatever_the_caption_tells() -> None:
    rng, woman = random.Random(0), next(glyph for glyph in people() if glyph.gender == "woman")
    pairs = [titled_pair(woman, woman.image(), "purnod", rng) for _ in range(40)]
    assert {pair.caption for pair in pairs} == {f"a photo of a {told}" for told in ("purnod", "woman", "woman purnod")}
    assert all(pair.told <= pair.true == person_facts(woman) | {"purnod"} for pair in pairs)


def test_the_three_phantoms_differ_in_the_dose_alone() -> None:
    assert [recipe.rho for recipe in RECIPES.values()] == [0.95, 0.7, 0.5]
    assert len({ClipRecipe("one", 0.5, **_rest(recipe)) for recipe in RECIPES.values()}) == 1


def _rest(recipe: ClipRecipe) -> dict[str, float]:
    return {key: value for key, value in vars(recipe).items() if key not in ("name", "rho")}
