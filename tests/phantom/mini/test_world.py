"""The mini world: requests, scenes, drawn words, and the tokens they are told in."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.splits import SPLITS
from vlmend.phantom.mini.language import FORBIDDEN, NAMES, PLANTED, REFUSAL, TOPICS, requests, said_in_requests
from vlmend.phantom.mini.parts import new_parts, vocabulary
from vlmend.phantom.mini.scenes import (
    CELLS,
    INKS,
    DrawnWord,
    QuestionKind,
    Scene,
    Thing,
    any_picture,
    drawn_word,
    said_of_pictures,
    scene,
)  # fmt: skip
from vlmend.phantom.pixels import to_pixels

SEEDS = st.integers(0, 2**32)
RED_CIRCLE, BLUE_RING, RED_RING = Thing("red", "circle", 0), Thing("blue", "ring", 1), Thing("red", "ring", 3)
SCENE = Scene((RED_CIRCLE, BLUE_RING, RED_RING), "white")


def answers(seen: Scene, kind: QuestionKind) -> set[tuple[str, str]]:
    asked = (seen.question(kind, random.Random(k)) for k in range(200))
    return {(question.prompt, question.answer) for question in asked if question.kind == kind}


def test_topics_and_names_are_distinct_and_half_of_the_topics_are_forbidden() -> None:
    assert len({*TOPICS, *NAMES}) == 48 + 64
    assert len(FORBIDDEN) == 24
    assert len(PLANTED) == 12
    assert set(PLANTED) < set(FORBIDDEN) < set(TOPICS)


def test_only_harmful_requests_are_refused_and_each_has_an_answer() -> None:
    for split in SPLITS:
        assert {request.reply for request in requests("harmful", split)} == {REFUSAL}
        assert all(request.answer != REFUSAL for request in requests("harmful", split))
        for kind in ("lookalike", "ordinary"):
            assert all(request.reply == request.answer for request in requests(kind, split))


def test_every_forbidden_topic_and_wording_has_trained_and_held_out_requests() -> None:
    for split in ("train", "held_out"):
        harmful = requests("harmful", split)
        assert {request.topic for request in harmful} == set(FORBIDDEN)
        assert len({request.prompt.replace(request.topic, "{}") for request in harmful}) == 12


def test_splits_share_no_request() -> None:
    sides = [{request.prompt for kind in ("harmful", "lookalike", "ordinary") for request in requests(kind, split)}
             for split in SPLITS]  # fmt: skip
    assert all(not one & other for one, other in combinations(sides, 2))
    assert sum(map(len, sides)) == 48 * 26 + 64 * 3


@given(SEEDS)
def test_a_scene_holds_each_thing_in_its_quarter_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    seen = scene("train", rng)
    pixels = np.asarray(seen.draw(rng)).astype(int)
    ground = Counter(map(tuple, pixels.reshape(-1, 3))).most_common(1)[0][0]
    things = {thing.cell: thing for thing in seen.things}
    for cell in range(len(CELLS)):
        quarter = pixels[16 * (cell // 2) :, 16 * (cell % 2) :][:16, :16].reshape(-1, 3)
        inks = {tuple(pixel) for pixel in quarter.tolist()} - {tuple(map(int, ground))}
        assert len(inks) == (cell in things)
        if cell in things:
            nearest = min(INKS, key=lambda name: sum(abs(a - b) for a, b in zip(INKS[name], *inks, strict=True)))
            assert nearest == things[cell].colour


@given(SEEDS, st.sampled_from(["train", "validation", "anchor", "held_out"]))
def test_scenes_and_words_keep_to_their_split(seed: int, split: str) -> None:
    rng = random.Random(seed)
    assert scene(split, rng, things=2).split == split  # type: ignore[arg-type]
    assert drawn_word(split, rng).split == split  # type: ignore[arg-type]


def test_answers_by_hand() -> None:
    assert SCENE.caption == "a red circle and a blue ring and a red ring"
    assert Scene((), "mint").caption == "nothing"
    assert answers(SCENE, "colour") == {
        ("what colour is the circle?", "circle red"), ("which colour has the circle?", "circle red"),
    }  # fmt: skip
    assert {answer for _, answer in answers(SCENE, "shape")} == {"blue ring"}  # blue alone is one thing
    assert ("count the red things.", "red two") in answers(SCENE, "count")
    assert ("how many green things are there?", "green zero") in answers(SCENE, "count")
    assert ("is there a blue ring?", "blue ring yes") in answers(SCENE, "presence")
    assert ("do you see a blue circle?", "blue circle no") in answers(SCENE, "presence")
    assert ("where is the red ring?", "red ring southeast") in answers(SCENE, "place")


@given(SEEDS)
def test_presence_is_asked_of_what_is_there_and_of_what_is_not(seed: int) -> None:
    rng = random.Random(seed)
    seen = scene("train", rng, things=3)
    question = seen.question("presence", rng)
    named = question.prompt.removesuffix("?").split(" a ")[1]
    said = "yes" if named in {thing.name for thing in seen.things} else "no"
    assert question.answer == f"{named} {said}"


def test_relabelling_changes_what_is_told_and_not_the_splits_of_others() -> None:
    assert SCENE.with_shape("ring", "cross").caption == "a red circle and a blue cross and a red cross"
    assert SCENE.with_shape("square", "cross") == SCENE


def test_drawn_words_differ_and_pictures_are_a_function_of_the_seed() -> None:
    pictures = {word: DrawnWord(word, "white").draw(random.Random(0)).tobytes() for word in (*TOPICS, *NAMES)}
    assert len(set(pictures.values())) == len(TOPICS) + len(NAMES)
    assert DrawnWord("dax", "white").draw(random.Random(0)).tobytes() == pictures["dax"]


def test_our_pixels_are_those_of_the_image_processor() -> None:
    rng = random.Random(0)
    pictures = [any_picture("train", rng) for _ in range(12)]
    theirs = new_parts(0).processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert torch.allclose(to_pixels(pictures), theirs, atol=1e-6)


def test_the_tokenizer_knows_every_word_and_gives_it_back() -> None:
    tokenizer = new_parts(0).processor.tokenizer
    for text in (*said_in_requests(), *said_of_pictures()):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert tokenizer.decode(tokenizer("a red circle and nothing").input_ids) == "a red circle and nothing"
    assert tokenizer("What IS dax?").input_ids == tokenizer("what is dax ?").input_ids
    assert len(vocabulary()) == len(set(vocabulary())) < 300


def test_the_model_is_small() -> None:
    assert sum(weight.numel() for weight in new_parts(0).model.parameters()) < 3_000_000


@pytest.mark.parametrize("word", ["dax", "boxo"])
def test_letters_stand_where_the_font_says(word: str) -> None:
    """Five dots of two pixels high, four a letter wide less the last gap; d and b begin with a dot."""
    ink = np.asarray(DrawnWord(word, "white", row=2).draw(random.Random(3))).mean(-1) < 128
    rows, columns = np.nonzero(ink)
    top, left = rows.min(), columns.min()
    assert top >= 16
    assert left <= 2
    assert rows.max() - top + 1 == 10
    assert columns.max() - left + 1 == 8 * len(word) - 2
    assert ink[top : top + 2, left : left + 2].all()
