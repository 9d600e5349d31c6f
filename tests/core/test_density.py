"""Density scores: a lattice is even, a far point comes first, moving and scaling change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.metrics.density import dao, k_distance, neighbours_of, slof
from vlmend.errors import BadParameter


def cloud(seed: int, count: int = 60, width: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_inside_a_lattice_all_is_even() -> None:
    line = torch.arange(21.0)
    near = neighbours_of(torch.cartesian_prod(line, line), 4)
    inside = [21 * x + y for x in range(3, 18) for y in range(3, 18)]
    assert k_distance(near)[inside].tolist() == pytest.approx([1.0] * len(inside))
    assert slof(near)[inside].tolist() == pytest.approx([1.0] * len(inside))
    assert dao(near)[inside].tolist() == pytest.approx([0.0] * len(inside), abs=1e-6)


def test_three_points_on_a_line_by_hand() -> None:
    """0, 1 and 3 with k = 2: distances (1, 3), (1, 2), (2, 3); dimension -2 / ln(1/3), -2 / ln(1/2), -2 / ln(2/3)."""
    near = neighbours_of(torch.tensor([[0.0], [1.0], [3.0]]), 2)
    assert k_distance(near).tolist() == [3, 2, 3]
    assert slof(near).tolist() == pytest.approx([(3 / 2 + 1) / 2, 2 / 3, (1 + 3 / 2) / 2])
    assert float(dao(near)[0]) == pytest.approx((2 / math.log(2) * math.log(3 / 2) + 0) / 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_law_moving_turning_and_scaling_change_nothing(seed: int, factor: float) -> None:
    points = cloud(seed)
    turn = torch.linalg.qr(cloud(seed + 1, 5)).Q
    moved = neighbours_of(factor * points @ turn + 7, 8)
    near = neighbours_of(points, 8)
    for score in (slof, dao):
        assert torch.allclose(score(near), score(moved), rtol=1e-6, atol=1e-6)
    assert torch.allclose(factor * k_distance(near), k_distance(moved))


def test_a_far_point_comes_first_in_all_and_copies_do_no_harm() -> None:
    points = torch.cat([cloud(0), torch.full((1, 5), 30.0)])
    near = neighbours_of(points, 8)
    assert {int(score(near).argmax()) for score in (k_distance, slof, dao)} == {60}
    copies = neighbours_of(points.repeat(12, 1), 8)
    assert all(bool(score(copies).isfinite().all()) for score in (k_distance, slof, dao))


def test_blocks_give_what_the_whole_gives_and_too_many_neighbours_are_refused() -> None:
    points = cloud(3, 1500, 3)
    found = neighbours_of(points, 5)[0]
    whole = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.allclose(found, whole.sort(dim=1).values[:, 1:6])
    with pytest.raises(BadParameter, match="60 neighbours of 60 points"):
        neighbours_of(cloud(0), 60)
