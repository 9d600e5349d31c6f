"""Numbers of heat maps, worked out by hand, and laws that hold of any map."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlmend.core.metrics.attribution import (
    CELLS,
    cell_means,
    cells_of,
    centre_map,
    completeness_error,
    curve_area,
    mass_share,
    points_at,
    rank_correlation,
    spread_cells,
)
from vlmend.errors import BadParameter

MAPS = arrays(np.float64, (4, 5), elements=st.floats(-10, 10))
REGIONS = arrays(np.bool_, (4, 5))


def test_share_of_mass_by_hand() -> None:
    """Positive mass 1 + 3 + 4 = 8, of which 1 + 3 in the upper row; what speaks against does not count."""
    found, upper = np.array([[1.0, 3.0], [-5.0, 4.0]]), np.array([[True, True], [False, False]])
    assert mass_share(found, upper) == 0.5
    assert mass_share(found, upper, counted=np.array([[True, True], [True, False]])) == 1.0
    assert math.isnan(mass_share(-abs(found), upper))
    assert not points_at(found, upper)
    assert points_at(found, ~upper)


@given(MAPS, REGIONS)
def test_a_region_and_the_rest_share_all_of_the_mass(found: np.ndarray, region: np.ndarray) -> None:
    if (found > 0).any():
        assert mass_share(found, region) + mass_share(found, ~region) == pytest.approx(1)
        assert mass_share(3 * found, region) == pytest.approx(mass_share(found, region))


def test_a_flat_map_gives_every_region_its_area() -> None:
    region = np.zeros((4, 5), bool)
    region[1:3, 1:4] = True
    assert mass_share(np.ones((4, 5)), region) == pytest.approx(6 / 20)
    assert mass_share(centre_map(4, 5), region) > 6 / 20


def test_the_centre_map_by_hand() -> None:
    """Middles of two pixels lie a quarter from the middle: one standard deviation, in each direction."""
    np.testing.assert_allclose(centre_map(2, 2), np.full((2, 2), math.exp(-1)))
    assert centre_map(3, 3)[1, 1] == 1


def test_completeness_by_hand() -> None:
    """Attributions of 0.9 for a change of 2 - 1 = 1 miss a tenth of it."""
    assert completeness_error(0.9, 2.0, 1.0) == pytest.approx(0.1)
    assert completeness_error(0.0, 1.0, 1.0) == 0
    assert completeness_error(0.1, 1.0, 1.0) == math.inf


def test_rank_correlation_of_a_map_with_itself_its_negative_and_a_flat_one() -> None:
    found = np.arange(6.0).reshape(2, 3)
    assert rank_correlation(found, found**3) == pytest.approx(1)
    assert rank_correlation(found, -found) == pytest.approx(-1)
    assert math.isnan(rank_correlation(found, np.ones((2, 3))))


def test_cells_cover_the_picture_and_their_means_are_of_their_pixels() -> None:
    cells = cells_of(16, 24)
    assert sorted(set(cells.ravel().tolist())) == list(range(CELLS**2))
    assert set(np.bincount(cells.ravel())) == {2 * 3}
    assert cell_means(cells.astype(float)).tolist() == list(range(CELLS**2))
    assert spread_cells([0], 16, 24)[:2, :3].all()
    assert spread_cells([0], 16, 24).sum() == 6
    assert cells_of(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_area_under_a_curve_by_hand() -> None:
    """(4 + 2) / 2 and (2 + 0) / 2, each half as wide as the curve."""
    assert curve_area([4.0, 2.0, 0.0]) == pytest.approx(2)
    with pytest.raises(BadParameter, match="two points"):
        curve_area([1.0])
