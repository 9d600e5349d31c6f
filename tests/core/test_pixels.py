"""Anomaly maps: windows, means over them, and detection of pixels by hand and by law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.pixels import pixel_detection, spread_over_pixels, windows
from vlmend.errors import BadParameter


def test_windows_lie_half_over_each_other_and_end_at_the_edge() -> None:
    """6 pixels, windows of 2: steps of 1. 7 x 4 with windows of 4: steps of 2, the last at 3."""
    assert [place[0] for place in windows(6, 2, 1)] == [0, 1, 2, 3, 4]
    assert windows(7, 4, 1) == [(0, 0, 4, 4), (2, 0, 6, 4), (3, 0, 7, 4)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_every_pixel_lies_in_a_window(width: int, height: int, across: int) -> None:
    places = windows(width, height, across)
    assert np.allclose(spread_over_pixels(places, [2.5] * len(places), width, height), 2.5)


def test_a_pixel_has_the_mean_of_its_windows() -> None:
    """Windows 0 to 2 and 1 to 3 with scores 1 and 3."""
    assert spread_over_pixels([(0, 0, 2, 1), (1, 0, 3, 1)], [1.0, 3.0], 3, 1).tolist() == [[1, 2, 3]]
    with pytest.raises(BadParameter, match="no window"):
        spread_over_pixels([(0, 0, 1, 1)], [1.0], 2, 1)


def test_detection_by_hand() -> None:
    """Unknown 4 and 2 among known 3, 1, 0; the 9 is void. Of six pairs 5 are in order: AUROC 5/6.

    Down the scores: 4 hit (precision 1), 3 miss, 2 hit (2/3): AUPR 5/6. All unknown lie at 2 or above, and of the
    known one in three does.
    """
    scores = np.array([[4.0, 2.0, 3.0, 1.0, 0.0, 9.0]])
    unknown = np.array([[True, True, False, False, False, False]])
    counted = np.array([[True, True, True, True, True, False]])
    found = pixel_detection(scores, unknown, counted)
    assert found == pytest.approx((5 / 6, 5 / 6, 1 / 3, 2 / 5))


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_turned_round_the_areas_sum_to_one_and_a_shift_changes_nothing(pixels: list[tuple[float, bool]]) -> None:
    scores, unknown = np.round([[score for score, _ in pixels]], 3), np.array([[one for _, one in pixels]])
    if unknown.all() or not unknown.any():
        with pytest.raises(BadParameter, match="cannot be told apart"):
            pixel_detection(scores, unknown, np.ones_like(unknown))
        return
    counted = np.ones_like(unknown)
    found, turned = (pixel_detection(one, unknown, counted) for one in (scores, -scores))
    assert found.auroc + turned.auroc == pytest.approx(1)
    assert pixel_detection(scores * 2, unknown, counted) == found
    assert found.base_rate == unknown.mean()
