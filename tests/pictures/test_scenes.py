"""Scenes: what the caption and the answers say is what the pixels show."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import label

from vlmend.pictures.scenes import COLOURS, NUMBERS, Place, Scene, Thing, drawn_scene, scene

SEEDS = st.integers(0, 10**6)
TWO = Scene(
    (
        Thing("red", "circle", (Place(12, 12, 8), Place(60, 60, 8))),
        Thing("orange", "cross", (Place(36, 36, 9),)),
    )
)


def components(picture: Image.Image, colour: str) -> int:
    """Connected regions of exactly one colour (edges are mixed with the ground)."""
    return label((np.asarray(picture) == COLOURS[colour]).all(axis=-1), np.ones((3, 3)))[1]


def test_words_of_a_scene() -> None:
    assert TWO.caption() == "two red circles and one orange cross"
    three = Scene((*TWO.things, Thing("blue", "cross", (Place(12, 60, 8), Place(60, 12, 8)))))
    assert three.caption() == "two red circles, one orange cross and two blue crosses"
    asked = {question.text: question.answer for question in three.questions()}
    assert asked["How many blue crosses are there?"] == "two"
    assert asked["Is there an orange cross?"] == "yes"
    assert asked["What colour are the circles?"] == "red"
    assert not any(text.startswith("What colour") and "cross" in text for text in asked), "two colours, no one answer"


def test_a_scene_of_one_place_is_drawn_there() -> None:
    picture = drawn_scene(TWO, random.Random(0))
    assert picture.getpixel((12, 12)) == picture.getpixel((60, 60)) == COLOURS["red"]
    assert picture.getpixel((36, 36)) == COLOURS["orange"]
    assert picture.getpixel((12, 60)) not in (COLOURS["red"], COLOURS["orange"])


@settings(max_examples=120, deadline=None)
@given(SEEDS)
def test_counts_are_those_of_the_connected_regions(seed: int) -> None:
    made = scene(random.Random(seed))
    picture = drawn_scene(made, random.Random(seed))
    wanted = Counter[str]()
    for thing in made.things:
        wanted[thing.colour] += thing.count
    assert {colour: components(picture, colour) for colour in COLOURS} == {c: wanted[c] for c in COLOURS}


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_places_do_not_touch_and_stay_inside(seed: int) -> None:
    places = [place for thing in scene(random.Random(seed)).things for place in thing.places]
    assert 1 <= len(places) <= 9
    for place in places:
        assert place.radius <= place.x <= 72 - place.radius
        assert place.radius <= place.y <= 72 - place.radius
    for k, one in enumerate(places):
        for other in places[k + 1 :]:
            assert max(abs(one.x - other.x), abs(one.y - other.y)) > one.radius + other.radius


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_answers_are_true_and_presence_is_balanced(seed: int) -> None:
    made = scene(random.Random(seed))
    there = {(thing.colour, thing.shape): thing.count for thing in made.things}
    presence = Counter(question.answer for question in made.questions() if question.kind == "presence")
    assert presence["yes"] == presence["no"] == len(there)
    for question in made.questions():
        words = question.text.rstrip("?").split()
        if question.kind == "presence":
            assert ((words[3], words[4]) in there) == (question.answer == "yes")
        elif question.kind == "count":
            shape = words[3].removesuffix("es" if "cross" in words[3] else "s")
            assert question.answer == NUMBERS[there[words[2], shape]]
        else:
            assert sum(shape in words[-1] for _, shape in there) == 1
            assert next(colour for colour, shape in there if shape in words[-1]) == question.answer


def test_all_counts_shapes_and_sizes_of_scenes_occur() -> None:
    made = [scene(random.Random(seed)) for seed in range(400)]
    assert {len(each.things) for each in made} == {1, 2, 3}
    assert {thing.count for each in made for thing in each.things} == {1, 2, 3, 4}
    assert len({(thing.colour, thing.shape) for each in made for thing in each.things}) == 48
