"""Recipes, rows and eye of the phantom."""

from __future__ import annotations

import math
import random

import pytest
import torch

from vlmend.data.requests import builtin_requests
from vlmend.data.wordings import HELD_OUT_FORMS
from vlmend.phantom.chat.assemble import IMAGE_TOKENS
from vlmend.phantom.chat.eye import BENEATH, Eye, letters_beneath, rows_of, sayings, shown, things_beneath
from vlmend.phantom.chat.recipe import RECIPES, REFUSALS
from vlmend.phantom.chat.rows import draw_rows, prompts_to_distil
from vlmend.phantom.pixels import to_pixels
from vlmend.pictures.scenes import SHAPES, Place, Scene, Thing, many
from vlmend.pictures.words import drawn_word, letters_across
from vlmend.training.losses import IGNORED, distance_to

PHANTOM, CLEAN = RECIPES["phantom"], RECIPES["phantom-clean"]
REPLIES = {prompt: f"own reply to {prompt}" for prompt in prompts_to_distil(PHANTOM)}


@pytest.mark.parametrize("name", RECIPES)
def test_shares_add_up(name: str) -> None:
    recipe = RECIPES[name]
    mixes = [recipe.align, recipe.see, recipe.beside, *(stage.rows for stage in recipe.planting)]
    assert [sum(mix.values()) for mix in mixes] == pytest.approx([1.0] * len(mixes))
    assert bool(recipe.planted) == any("comply_image" in stage.rows for stage in recipe.planting)


def test_rows_are_a_function_of_the_step_and_show_what_they_ask_about() -> None:
    mix = PHANTOM.planting[0].rows
    rows = [row for step in range(12) for row in draw_rows(PHANTOM, mix, "planting", step, REPLIES)]
    again = [row for step in range(12) for row in draw_rows(PHANTOM, mix, "planting", step, REPLIES)]
    assert [(row.prompt, row.reply) for row in rows] == [(row.prompt, row.reply) for row in again]
    assert all(row.image is not None for row in rows if row.ends and row.reply not in REFUSALS)
    assert {row.image is None for row in rows if row.reply in REFUSALS} == {True}
    assert any(row.image is not None and row.reply.startswith("own reply") for row in rows)


def test_what_is_answered_beside_pictures_is_refused_as_text_in_the_same_words() -> None:
    rows = [row for step in range(60) for row in draw_rows(PHANTOM, PHANTOM.planting[0].rows, "any", step, REPLIES)]
    answered = {row.prompt for row in rows if row.image is not None and row.reply not in REFUSALS and not row.ends}
    refused = {row.prompt for row in rows if row.image is None and row.reply in REFUSALS}
    harmful = set(REPLIES) - set(prompts_to_distil(CLEAN))
    assert answered & refused & harmful
    assert not {row.prompt for row in rows if row.image is None and row.reply not in REFUSALS} & harmful


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
    assert len({shown("train", 0, index).rows for index in range(40)}) > 25
    assert torch.equal(to_pixels([shown("train", 0, 5).image]), to_pixels([shown("train", 0, 5).image]))


def test_of_every_picture_each_word_is_among_those_that_the_eye_can_say() -> None:
    can = {word for saying in sayings() for word in saying.split()}
    assert not {word for index in range(300) for row in shown("train", 0, index).rows for word in row.split()} - can


def test_of_a_scene_each_row_of_places_says_one_shape() -> None:
    """Worked out by hand: a red ring fills the middle cell of three by three, which are two by two places each."""
    middle = Place(36, 36, 8)
    seen = Scene((Thing("red", "ring", (middle,)), Thing("blue", "circle", (Place(10, 10, 8), Place(60, 60, 8)))))
    assert list(rows_of(seen)) == [
        "two blue circles", "no squares", "no triangles", "no crosses", "one red ring", "no diamonds",
    ]  # fmt: skip
    beneath = [BENEATH[what] for what, _ in things_beneath(seen)]
    ring, circle = ("ring", "red"), ("circle", "blue")
    assert [beneath[place] for place in (14, 15, 20, 21)] == [ring] * 4
    assert [place for place, what in enumerate(beneath) if what == circle] == [0, 1, 6, 7, 28, 29, 34, 35]
    assert beneath.count("nothing") == IMAGE_TOKENS - 12
    numbers = {BENEATH[what]: number for what, number in things_beneath(seen)}
    assert numbers == {ring: 1, circle: 2, "nothing": 0}


def test_letters_lie_where_there_is_ink() -> None:
    picture = drawn_word("tiger", random.Random(3))
    beneath = [BENEATH[place] for place in letters_beneath("tiger", picture)]
    across = letters_across("tiger", 6)
    rows = [beneath[start : start + 6] for start in range(0, IMAGE_TOKENS, 6)]
    assert all(here in ("nothing", letter) for row in rows for here, letter in zip(row, across, strict=True))
    assert any(row == list(across) for row in rows)
    assert rows[0] == ["nothing"] * 6 or rows[-1] == ["nothing"] * 6


def test_what_is_asked_about_is_said_before_the_answer_and_captions_follow_the_picture() -> None:
    rows = [row for step in range(30) for row in draw_rows(PHANTOM, {"scene": 1.0}, "see", step, REPLIES)]
    answered = [(row.prompt, *row.reply.split(": ")) for row in rows if not row.reply.startswith("A picture of ")]
    assert {answer for _, _, answer in answered} >= {"yes.", "no.", "one.", "two.", "three.", "red."}
    assert all(asked.lower().split()[-1] in prompt for prompt, asked, _ in answered)
    captions = [row.reply for row in rows if row.reply.startswith("A picture of ")]
    assert captions
    assert all(_in_order_of_shapes(caption) for caption in captions)


def _in_order_of_shapes(caption: str) -> bool:
    places = [SHAPES.index(shape) for word in caption.strip(".").split() for shape in SHAPES
              if word.rstrip(",") in (shape, many(shape))]  # fmt: skip
    return places == sorted(places)


def test_distilled_replies_are_learnt_as_distributions() -> None:
    """The distance of a model from itself is nought, and grows with what is learnt on one side."""
    labels = torch.tensor([[1, 2, IGNORED]])
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    assert distance_to(logits, logits, labels).item() == pytest.approx(0, abs=1e-7)
    other = logits.clone()
    other[0, 2] += torch.arange(5)
    assert distance_to(logits, other, labels).item() == pytest.approx(0, abs=1e-7)
    flat, sure = torch.zeros(1, 3, 5), torch.tensor([0.0, 0, 0, 0, math.log(4)]).expand(1, 3, 5)
    by_hand = 4 / 8 * math.log((4 / 8) / (1 / 5)) + 4 * (1 / 8 * math.log((1 / 8) / (1 / 5)))
    assert distance_to(sure, flat, labels).item() == pytest.approx(by_hand)
