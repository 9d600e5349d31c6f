"""Sets of samples told apart: as the Gaussian says, one is the attack on samples, and alike kinds stay at chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from vlmend.core.metrics.detection import auroc
from vlmend.core.metrics.membership import ByCluster, set_separation


def kind(mean: float, seed: int, count: int = 400) -> ByCluster:
    return {str(k): [float(x)] for k, x in enumerate(np.random.default_rng(seed).normal(mean, 1, count))}


@pytest.mark.parametrize("size", [4, 20])
def test_it_grows_with_the_root_of_the_size_as_for_gaussians(size: int) -> None:
    """AUROC 0.6 of single samples is a shift of 0.36 sigma: sets of g give Phi(0.36 sqrt(g / 2)), 0.87 for 20."""
    members, others = kind(0.36, 0), kind(0.0, 1)
    own, other = (np.array([of[0] for of in one.values()]) for one in (members, others))
    shift = (own.mean() - other.mean()) / np.sqrt((own.var() + other.var()) / 2)
    found = set_separation(members, others, size, seed=0)
    assert found.value == pytest.approx(float(ndtr(shift * np.sqrt(size / 2))), abs=0.02)
    assert found.low <= found.value <= found.high
    assert size < 20 or found.value > 0.8


def test_a_set_of_one_is_the_attack_on_single_samples() -> None:
    members, others = kind(0.5, 2, 60), kind(0.0, 3, 60)
    slow = auroc([of[0] for of in members.values()], [of[0] for of in others.values()])
    assert set_separation(members, others, 1, seed=0).value == slow


def test_kinds_that_are_alike_stay_within_chance() -> None:
    found = set_separation(kind(0.0, 4), kind(0.0, 5), 20, seed=0)
    assert found.low < 0.5 < found.high


def test_fewer_clusters_than_a_set_are_not_known_and_sure_sets_have_an_interval() -> None:
    assert all(math.isnan(x) for x in set_separation(kind(0, 6, 19), kind(0, 7, 40), 20, seed=0))
    sure = set_separation(kind(50, 8, 30), kind(0, 9, 30), 20, seed=0)
    assert sure.value == 1
    assert 0.8 < sure.low < 1
