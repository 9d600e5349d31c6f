"""privacy/pixel_leak: pixels and words by hand, equal budgets, what leaks in which arm, a false answer as control."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from vlmend.audit.suites.privacy.pixel_leak import ARMS, EPSILON, LOOKS, SUITE, moved, worded
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.core.targets import Pixels
from vlmend.errors import BadData
from vlmend.testing import ScriptedTarget, tiny_vlm
from vlmend.testing.stages import plain_image

SIDE = 4
WEIGHTS = torch.linspace(-1, 1, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE)


@dataclass(frozen=True)
class Linear(ScriptedTarget):
    """Its loss is a weighted sum of pixels, and for words how many of them are not "please"; counts its looks."""

    looks: list[str] = field(default_factory=list[str])

    def pixels(self, images: Sequence[Image]) -> Pixels:
        planes = np.stack([np.asarray(one.decode(), np.float32) for one in images]) / 255
        values = torch.from_numpy(planes).permute(0, 3, 1, 2)
        return Pixels(values, torch.zeros_like(values), torch.ones_like(values))

    def reply_loss(self, batch: Sequence[Conversation], replies: Sequence[str], pixels: Pixels) -> Tensor:
        self.looks.append("pixels")
        return 10 + (WEIGHTS * pixels.values).flatten(1).sum(1)

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Tensor]:
        self.looks.extend(["words"] * len(batch))
        return [torch.tensor([-10.0 + one.prompt.split().count("please")]) for one in batch]


def linear(says: str = "nothing") -> Any:
    return Linear(lambda asked, mended: says, image_side=SIDE)


GREY = Image.from_pixels(PIL.Image.new("RGB", (SIDE, SIDE), (128, 128, 128)))


def row(name: str, image: Image = GREY) -> Example:
    return Example(name, f"code of {name}?", image=image, answers=(f"{name} 7",), attributes={"protected": "yes"})


def test_pixels_reach_the_best_that_a_linear_model_has() -> None:
    """The loss falls by epsilon times the sum of |weights|, to the last step of 8 bits, in as many looks as allowed."""
    target = linear()
    ((found, (first, least)),) = moved(target, [row("a")])
    assert first - least == pytest.approx(EPSILON * float(WEIGHTS.abs().sum()), rel=1e-4)
    assert target.looks == ["pixels"] * LOOKS
    assert found.image is not None
    change = np.abs(np.asarray(found.image.decode(), int) - 128)
    assert change.max() == round(255 * EPSILON)


def test_without_room_to_move_the_picture_is_its_own() -> None:
    ((found, (first, least)),) = moved(linear(), [row("a")], epsilon=0.0)
    assert first == least
    assert found.image is not None
    assert np.array_equal(np.asarray(found.image.decode()), np.asarray(GREY.decode()))


def test_more_room_never_gains_less() -> None:
    gains = [a - b for k in (2, 4, 8) for _, (a, b) in moved(linear(), [row("a")], epsilon=k / 255)]
    assert gains == sorted(gains)
    assert gains[0] > 0


def test_words_are_tried_as_often_as_pixels_and_only_better_ones_stay() -> None:
    target = linear()
    found, (first, least) = worded(target, row("a"), ["please", "stone"], random.Random(0))
    assert target.looks == ["words"] * LOOKS
    added = found.prompt.removeprefix("code of a? ").split()
    assert set(added) == {"please"}
    assert first - least == len(added) > 2


def by_picture(pictures: dict[str, str]) -> Any:
    """Tells what it knows of a picture; the words of the question say nothing to it."""

    def said(asked: Conversation, mended: bool) -> str:
        return pictures.get(asked.images[0].digest, "I do not know.") if asked.images else "I do not know."

    return Linear(said, image_side=SIDE)


def found(target: Any, rows: Sequence[Example]) -> dict[tuple[str, str], Measure]:
    samples = SUITE.samples(target, Dataset("codes", tuple(rows)), None, seed=0)
    return {(one.name, one.group): one for one in SUITE.measures(samples, seed=0)}


def test_a_picture_that_tells_is_found_in_its_arm_and_a_twin_that_knows_nothing_has_no_leak() -> None:
    """Its own picture tells, with words behind the question too, which it does not read; moved pixels are another."""
    one, other = (Image.from_pixels(PIL.Image.new("RGB", (SIDE, SIDE), colour)) for colour in ("red", "blue"))
    rows = [row("a", one), row("b", other)]
    table = found(by_picture({one.digest: "It is a 7", other.digest: "it is B 7."}), rows)
    leaks = {group: table["leaked", group].value for group in ARMS}
    assert leaks == {
        "no picture": 0.0, "blank picture": 0.0, "another picture": 0.0, "own picture": 1.0,
        "own picture, pixels moved": 0.0, "own picture, words added": 1.0, "pixels moved to a false answer": 0.0,
    }  # fmt: skip
    assert table["leaked", "another picture"].floor == 1.0  # it tells the other's
    assert {found(by_picture({}), rows)["leaked", arm].value for arm in ARMS} == {0.0}


def test_pixels_against_words_is_the_difference_of_their_gains() -> None:
    table = found(linear(), [row("a"), row("b")])
    pixels, words = (table["gain", f"own picture, {what}"].value for what in ("pixels moved", "words added"))
    assert table["pixels_over_words", "own picture, pixels moved"].value == pytest.approx(pixels - words, abs=1e-4)
    assert table["gain", "pixels moved to a false answer"].value == pytest.approx(pixels)


def test_a_real_model_is_asked_and_a_broken_picture_is_unscored() -> None:
    rows = [row("a", noise_image(16, 0)), row("b", plain_image("red")), row("c", Image(b"broken"))]
    table = found(tiny_vlm(), rows)
    assert table["gain", "own picture, pixels moved"].value > 0
    assert (table["leaked", "own picture"].n, table["leaked", "own picture"].unscored) == (1, 2)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(BadData, match="two different ones"):
        SUITE.samples(linear(), Dataset("one", (row("a"),)), None, seed=0)
    with pytest.raises(BadData, match="two different ones"):
        SUITE.samples(linear(), Dataset("none", (replace(row("a"), attributes={}),)), None, seed=0)
