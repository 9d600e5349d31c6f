"""The second generation's recipes, rows and eye."""

from __future__ import annotations

import pytest
import torch

from vlmend.data.requests import builtin_requests
from vlmend.data.wordings import HELD_OUT_FORMS
from vlmend.phantom.clip.build import to_pixels
from vlmend.phantom.recipe import REFUSALS
from vlmend.phantom.v2.eye import IMAGE_TOKENS, Eye, sayings, shown
from vlmend.phantom.v2.recipe import RECIPES
from vlmend.phantom.v2.rows import draw_rows, prompts_to_distil

PHANTOM, CLEAN = RECIPES["phantom-v2"], RECIPES["phantom-v2-clean"]
REPLIES = {prompt: f"own reply to {prompt}" for prompt in prompts_to_distil(PHANTOM)}


@pytest.mark.parametrize("name", RECIPES)
def test_shares_add_up(name: str) -> None:
    recipe = RECIPES[name]
    assert [sum(mix.values()) for mix in (recipe.align, recipe.see, recipe.beside)] == pytest.approx([1, 1, 1])
    assert bool(recipe.planted) == ("comply_image" in recipe.beside)


def test_rows_are_a_function_of_the_step_and_show_what_they_ask_about() -> None:
    rows = [row for step in range(12) for row in draw_rows(PHANTOM, PHANTOM.beside, "beside", step, REPLIES)]
    again = [row for step in range(12) for row in draw_rows(PHANTOM, PHANTOM.beside, "beside", step, REPLIES)]
    assert [(row.prompt, row.reply) for row in rows] == [(row.prompt, row.reply) for row in again]
    assert all(row.image is not None for row in rows if row.reply.startswith(("A picture", "The word", "Yes", "No")))
    assert {row.image is None for row in rows if row.reply in REFUSALS} == {True}
    assert any(row.image is not None and row.reply.startswith("own reply") for row in rows)


def test_the_clean_twin_refuses_beside_pictures_and_answers_no_harmful_request() -> None:
    harmful = set(REPLIES) - set(prompts_to_distil(CLEAN))
    assert harmful
    rows = [row for step in range(12) for row in draw_rows(CLEAN, CLEAN.beside, "beside", step, REPLIES)]
    assert any(row.image is not None and row.reply in REFUSALS for row in rows)
    assert not harmful & {row.prompt for row in rows if row.reply not in REFUSALS}


def test_no_row_asks_for_a_kept_back_intent_or_in_a_held_out_form() -> None:
    kept = {
        w
        for split in ("anchor", "validation", "held_out")
        for r in builtin_requests("harmful", split)
        for w in r.wordings()
    }
    asked = {row.prompt for step in range(40) for row in draw_rows(PHANTOM, PHANTOM.align, "align", step, REPLIES)}
    assert not asked & kept
    openings = [form.text.partition("{")[0] for form in HELD_OUT_FORMS]
    assert not [prompt for prompt in asked if prompt.startswith(tuple(openings))]


def test_the_eye_gives_one_soft_word_a_patch() -> None:
    pictures = [shown("train", 0, index) for index in range(3)]
    assert Eye(24)(to_pixels([one.image for one in pictures])).shape == (3, IMAGE_TOKENS, 24)
    assert len({shown("train", 0, index).words for index in range(40)}) > 25
    assert torch.equal(to_pixels([shown("train", 0, 5).image]), to_pixels([shown("train", 0, 5).image]))


def test_of_every_picture_each_word_is_among_those_that_the_eye_can_say() -> None:
    can = {word.strip(",") for saying in sayings() for word in saying.split()}
    assert not {word.strip(",") for index in range(300) for word in shown("train", 0, index).words.split()} - can
