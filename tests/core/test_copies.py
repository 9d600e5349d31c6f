"""When pictures are copies: tiles and cosines worked out by hand, and cliques held against trying all sets."""

from __future__ import annotations

import itertools

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.metrics.copies import centred, largest_clique, thumbnails, tiles_apart


def test_one_tile_that_differs_decides() -> None:
    """A step of 0.5 in one of 16 tiles is 0.5 apart; over half a tile it is 0.5 * sqrt(1 / 2)."""
    plain = np.zeros((16, 16, 3))
    tile, half = plain.copy(), plain.copy()
    tile[4:8, 8:12] = 0.5
    half[4:6, 8:12] = 0.5
    found = tiles_apart(plain, np.stack([plain, tile, half]))
    assert found.tolist() == pytest.approx([0, 0.5, 0.5 * 0.5**0.5])


def test_brightness_tint_and_contrast_do_not_count_and_plain_pictures_are_alike_to_nothing() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((16, 16, 3))
    same, other = 0.3 * one + (0.1, 0.2, 0.3), rng.random((16, 16, 3))
    vectors = centred(np.stack([one, same, -one, other, np.full((16, 16, 3), 0.4)]))
    cosines = vectors @ vectors[0]
    assert cosines[:3] == pytest.approx([1, 1, -1])
    assert abs(cosines[3]) < 0.2
    assert cosines[4] == 0


def test_thumbnails_are_means_of_boxes_and_none_of_none() -> None:
    picture = PIL.Image.new("RGB", (32, 32), (255, 0, 0))
    picture.putpixel((0, 0), (0, 0, 0))
    small = thumbnails([picture])
    assert small.shape == (1, 16, 16, 3)
    assert small[0, 0, 0].tolist() == pytest.approx([191.25 / 255, 0, 0], abs=1 / 255)
    assert small[0, 1, 1].tolist() == [1, 0, 0]
    assert thumbnails([]).shape == (0, 16, 16, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.data())
def test_the_largest_clique_is_that_of_trying_every_set(count: int, data: st.DataObject) -> None:
    near = np.eye(count, dtype=bool)
    for a, b in itertools.combinations(range(count), 2):
        near[a, b] = near[b, a] = data.draw(st.booleans())
    sets = [some for size in range(count + 1) for some in itertools.combinations(range(count), size)]
    slow = max(len(some) for some in sets if all(near[a, b] for a, b in itertools.combinations(some, 2)))
    assert largest_clique(near) == slow
