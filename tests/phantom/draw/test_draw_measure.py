"""How near drawings are to training pictures and to each other, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tools.phantom.draw_measure import nearest, spread


def grey(*levels: float) -> np.ndarray:
    return np.stack([np.full((2, 2, 3), level) for level in levels])


def test_the_nearest_training_picture_decides_and_a_copy_is_at_0() -> None:
    assert nearest(grey(10, 60, 100), grey(0, 100)).tolist() == [10, 40, 0]


def test_the_spread_of_seeds_is_their_mean_distance_and_0_where_all_give_one_picture() -> None:
    assert spread(grey(0, 10, 40)) == pytest.approx((10 + 40 + 30) / 3)
    assert spread(grey(7, 7, 7)) == 0
