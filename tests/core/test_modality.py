"""The modality gap: sizes by hand, its laws, what chance leaves, moving it, and a probe that cannot cheat."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.metrics.modality import gap_floor, gap_shares, moved, told_apart


def cloud(count: int, seed: int, lift: float = 0.0, width: int = 12) -> Tensor:
    """Unit vectors in random directions, lifted along the first axis before lengths are made 1."""
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[:, 0] += lift
    return normalize(drawn, dim=1)


def test_the_size_by_hand() -> None:
    """(0.6, 0.8) and (0.6, -0.8): the gap is (0, 1.6). A pair that is one place adds nothing: 0.8 on average."""
    images = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    texts = torch.tensor([[0.6, -0.8], [1.0, 0.0]])
    torch.testing.assert_close(gap_shares(images, texts), torch.tensor([1.6, 0.0]))


@given(st.integers(2, 30), st.integers(0, 50), st.floats(-3, 3))
def test_the_mean_share_is_the_length_of_the_difference_of_means(count: int, seed: int, lift: float) -> None:
    images, texts = cloud(count, seed, lift), cloud(count, seed + 1, -lift)
    wanted = float((images.mean(0) - texts.mean(0)).norm())
    assert float(gap_shares(images, texts).mean()) == pytest.approx(wanted, abs=1e-9)
    assert float(gap_shares(texts, images).mean()) == pytest.approx(wanted, abs=1e-9)
    assert 0 <= wanted <= 2


def test_the_same_set_twice_has_no_gap_and_chance_gives_none() -> None:
    images = cloud(20, 0)
    assert not gap_shares(images, images).any()
    assert gap_floor(images, images, seed=0) == 0


def test_random_clouds_are_as_far_apart_as_chance_has_it_and_the_less_the_more_there_are() -> None:
    """The mean of n differences of random unit vectors is about sqrt(2 / n) long."""
    for count in (50, 5000):
        images, texts = cloud(count, 1), cloud(count, 2)
        floor = gap_floor(images, texts, seed=0)
        assert floor == pytest.approx(math.sqrt(2 / count), rel=0.1)
        assert float(gap_shares(images, texts).mean()) == pytest.approx(floor, rel=0.6)


def test_moving_the_gap_to_1_changes_nothing_and_to_0_nearly_closes_it() -> None:
    """Means meet exactly at factor 0; lengths brought back to 1 leave a little."""
    images, texts = cloud(200, 3, 2.0), cloud(200, 4, -1.0)
    for before, after in zip((images, texts), moved(images, texts, 1.0), strict=True):
        torch.testing.assert_close(before, after)
    sizes = [float(gap_shares(*moved(images, texts, factor)).mean()) for factor in (0.0, 0.5, 1.0, 2.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.2 * sizes[2]


def test_a_probe_tells_lifted_clouds_apart_and_guesses_where_they_are_alike() -> None:
    """Fitted and tried on the same 40 pairs of 40 numbers it would tell random clouds apart; held out it cannot."""
    apart = told_apart(cloud(40, 5, 8.0, 40), cloud(40, 6, -8.0, 40), seed=0)
    alike = told_apart(cloud(40, 5, 0.0, 40), cloud(40, 6, 0.0, 40), seed=0)
    assert apart.mean() == 1
    assert 0.3 < float(alike.mean()) < 0.7
    assert told_apart(cloud(4, 0), cloud(4, 1), seed=0).isnan().all()
