"""Views: grounds, places, shifts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmend.pictures.glyphs import objects
from vlmend.pictures.views import SIDE, Shift, fitted_turn, plain_colour, view

HEART = next(glyph for glyph in objects() if glyph.name == "heart").image()
NOTHING = Image.new("RGBA", (128, 128))


def colours(picture: Image.Image) -> int:
    return len(picture.getcolors(SIDE**2) or ())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, "ground", "rotation", "blur", "style"]))
def test_a_view_is_a_function_of_its_random_stream(seed: int, shift: Shift | None) -> None:
    one, same = (view(HEART, random.Random(seed), shift) for _ in range(2))
    assert one.tobytes() == same.tobytes()
    assert (one.mode, one.size) == ("RGB", (SIDE, SIDE))


@pytest.mark.parametrize("shift", ["ground", "rotation", "blur", "style"])
def test_a_shift_changes_the_picture(shift: Shift) -> None:
    assert view(HEART, random.Random(4), shift).tobytes() != view(HEART, random.Random(4)).tobytes()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_ordinary_grounds_are_plain_and_shifted_ones_are_not(seed: int) -> None:
    assert colours(view(NOTHING, random.Random(seed))) == 1
    assert colours(view(NOTHING, random.Random(seed), "ground")) > 20


def test_blur_lowers_and_style_greys() -> None:
    plain, blurred = (np.asarray(view(HEART, random.Random(7), shift), int) for shift in (None, "blur"))
    assert np.abs(np.diff(blurred, axis=0)).max() < np.abs(np.diff(plain, axis=0)).max() / 2
    grey = np.asarray(view(HEART, random.Random(7), "style"))
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 1] == grey[..., 2]).all()
    assert len(np.unique(grey)) <= 8


def test_a_shifted_turn_cuts_no_corner_of_a_glyph() -> None:
    full = Image.new("RGBA", (128, 128), (255, 0, 255, 255))
    for seed in range(20):
        rng = random.Random(seed)
        plain_colour(rng)
        side = rng.randint(48, 66)
        kept = (np.asarray(view(full, random.Random(seed), "rotation")) == (255, 0, 255)).all(axis=-1).sum()
        assert kept / side**2 > 0.9, "turned within its own box, a square would lose 12 to 17 %"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_turned_layer_is_kept_whole(seed: int) -> None:
    full = Image.new("RGBA", (SIDE, SIDE), "red")
    turned = np.asarray(fitted_turn(full, random.Random(seed)).getchannel("A"))
    corners = turned[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).all()
    area = (turned / 255).sum() / SIDE**2
    assert 0.48 < area < 0.63, "1 / (cos + sin) ** 2, from 0.61 at 20 degrees to 0.5 at 45"
