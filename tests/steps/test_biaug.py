"""biaug: one object gets another colour, one word of the caption with it, and nothing outside of the outline moves."""

from __future__ import annotations

import json
import math

import numpy as np
import PIL.Image
import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.outlines import OBJECTS, Outlined, RunLengths, objects_of, run_lengths
from vlmend.errors import BadData, BadParameter
from vlmend.phantom.mini.pairs import scene_pairs
from vlmend.phantom.mini.scenes import INKS, Scene, Thing
from vlmend.steps.robustness.biaug import NEGATIVE, BiAug
from vlmend.training.losses import counterpart_loss

CORNER = [[0, 0, 1, 0, 1, 1, 0, 1]]
"""The four pixels of the upper left corner."""


def row(name: str, colour: str, level: tuple[int, int, int], caption: str = "", **more: str) -> Example:
    """A square in the corner of a white picture of 4 x 4 pixels, one of its pixels darker by 8."""
    pixels = np.full((4, 4, 3), 255, np.uint8)
    pixels[:2, :2] = level
    pixels[0, 0] -= 8
    objects = json.dumps([{"name": "square", "colour": colour, "segmentation": CORNER}])
    return Example(
        name, image=Image.from_pixels(PIL.Image.fromarray(pixels)), caption=caption or f"a {colour} square",
        attributes={OBJECTS: objects, **more},
    )  # fmt: skip


RED, BLUE = row("r", "red", (208, 16, 16)), row("b", "blue", (16, 24, 208))
TWO = Dataset("two", (RED, BLUE))


def pixels_of(example: Example) -> np.ndarray:
    assert example.image is not None
    return np.asarray(example.image.decode()).astype(int)


def test_an_object_gets_the_mean_colour_of_those_called_so_and_keeps_its_shade() -> None:
    # Means: red (206, 14, 14), blue (14, 22, 206), each with one pixel of four darker by 8.
    edit = BiAug().apply(TWO, seed=0)
    counterpart = next(one.example for one in edit.added if one.example.id.startswith("r~"))
    assert counterpart.id == "r~blue-square"
    assert counterpart.caption == "a blue square"
    before, after = pixels_of(RED), pixels_of(counterpart)
    assert after[1, 1].tolist() == [208 - 192, 16 + 8, 16 + 192]
    assert (after[1, 1] - after[0, 0]).tolist() == [8, 8, 8]
    assert (after[2:] == before[2:]).all()
    assert (after[:, 2:] == before[:, 2:]).all()


def test_both_of_a_pair_have_the_others_caption_as_their_hard_negative() -> None:
    rows = {one.id: one for one in BiAug().apply(TWO, seed=0).data.examples}
    assert list(rows) == ["r", "r~blue-square", "b", "b~red-square"]
    for name, other in (("r", "r~blue-square"), ("b", "b~red-square")):
        assert rows[name].attributes[NEGATIVE] == rows[other].caption
        assert rows[other].attributes[NEGATIVE] == rows[name].caption
        assert rows[other].attributes["counterpart_of"] == name
        assert [one.colour for one in objects_of(rows[other])] == [str(rows[other].caption).split()[1]]


def test_captions_of_a_pair_differ_in_one_word_and_pictures_within_one_outline() -> None:
    data = BiAug().sample_data()
    edit = BiAug().apply(data, seed=1)
    of = {one.id: one for one in data.examples}
    assert [one.id for one in data.examples if one.caption == "a red diamond and a red diamond"] == ["0"]
    assert len(edit.added) == len(data.examples) - 1  # the one whose things are called the same
    for one in (added.example for added in edit.added):
        before = of[one.attributes["counterpart_of"]]
        words = list(zip(str(before.caption).split(), str(one.caption).split(), strict=True))
        assert sum(old != new for old, new in words) == 1
        changed = next(k for k, (a, b) in enumerate(zip(objects_of(before), objects_of(one), strict=True)) if a != b)
        mask = objects_of(before)[changed].mask(32, 32)
        moved = (pixels_of(one) != pixels_of(before)).any(axis=2)
        assert (moved == mask).all()


def test_a_recoloured_thing_has_the_ink_that_its_caption_names() -> None:
    """The card's check by a detector; here the nearest ink is the detector, and it agrees for every one."""
    data = BiAug().sample_data()
    for one in (added.example for added in BiAug().apply(data, seed=2).added):
        for thing in objects_of(one):
            mean = pixels_of(one)[thing.mask(32, 32)].mean(axis=0)
            assert min(INKS, key=lambda name: np.abs(mean - INKS[name]).sum()) == thing.colour


@pytest.mark.parametrize(("emit", "added", "negatives"), [("pictures", 2, 0), ("captions", 0, 2), ("both", 2, 4)])
def test_either_side_can_be_had_alone(emit: str, added: int, negatives: int) -> None:
    edit = BiAug(emit=emit).apply(TWO, seed=0)  # pyright: ignore[reportArgumentType]
    assert len(edit.added) == added
    assert sum(NEGATIVE in one.attributes for one in edit.data.examples) == negatives


def test_no_share_is_the_identity() -> None:
    assert BiAug(share=0).apply(TWO, seed=0).data.digest == TWO.digest
    with pytest.raises(BadParameter, match="share=2 is no share"):
        BiAug(share=2)


@pytest.mark.parametrize(
    "caption", ["a square", "a red square and a red square", "a red square and a blue square", "a redsquare"]
)
def test_a_caption_that_does_not_tell_the_object_apart_gets_no_counterpart(caption: str) -> None:
    edit = BiAug().apply(Dataset("set", (row("r", "red", (208, 16, 16), caption), BLUE)), seed=0)
    assert [one.example.id for one in edit.added] == ["b~red-square"]


def test_rows_without_outlines_are_refused_with_what_is_needed() -> None:
    bare = Example("a", image=RED.image, caption="a red square")
    with pytest.raises(BadData, match="No captioned picture of set says where its objects are") as problem:
        BiAug().apply(Dataset("set", (bare,)), seed=0)
    assert "segmentation" in problem.value.hint
    assert "A box is not enough" in problem.value.hint


def test_rows_that_cannot_be_read_stay_and_are_counted() -> None:
    wrong = Example("w", image=RED.image, caption="a red square", attributes={OBJECTS: '[{"name": "square"}]'})
    other = Example("o", image=RED.image, caption="x", attributes={OBJECTS: json.dumps(
        [{"name": "x", "colour": "red", "segmentation": {"size": [9, 9], "counts": [81]}}])})  # fmt: skip
    edit = BiAug().apply(Dataset("set", (*TWO.examples, wrong, other)), seed=0)
    assert edit.data.examples[-2:] == (wrong, other)
    (note,) = edit.data.notes
    assert note.startswith(
        "2 rows stay as they are, first: w (The objects of w cannot be read (0.colour: Field required)"
    )


def test_run_lengths_are_read_column_by_column_from_outside() -> None:
    # COCO: 2 pixels outside, 3 inside, 1 outside, down the columns of a picture 3 high and 2 wide.
    thing = Outlined(name="x", colour="red", segmentation=RunLengths(size=(3, 2), counts=[2, 3, 1]))
    mask = thing.mask(2, 3)
    assert mask.tolist() == [[False, True], [False, True], [True, False]]
    assert run_lengths(mask) == thing.segmentation
    assert run_lengths(~mask).counts == [0, 2, 3, 1]


def test_the_outline_of_a_thing_of_a_scene_is_the_thing() -> None:
    one = Scene((Thing("red", "square", 0), Thing("red", "circle", 3)), "white")
    (made,) = scene_pairs("one", [one], 0).examples
    square, circle = (thing.mask(32, 32) for thing in objects_of(made))
    assert not (square & circle).any()
    assert square[:16, :16].sum() == square.sum()
    assert circle[16:, 16:].sum() == circle.sum()
    assert ((square | circle) == (pixels_of(made) != pixels_of(made)[0, 31]).any(axis=2)).all()


def test_a_pair_that_is_not_told_apart_costs_ln_2() -> None:
    unit = torch.eye(3)
    assert counterpart_loss(unit[:1], unit[1:2], unit[2:], 10.0).item() == pytest.approx(math.log(2))
    # The picture is its caption: 10 nearer to it than to the negative.
    assert counterpart_loss(unit[:1], unit[:1], unit[2:], 10.0).item() == pytest.approx(math.log(1 + math.exp(-10)))
