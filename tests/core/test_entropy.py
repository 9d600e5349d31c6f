"""Rényi entropies at their ends and limits, and the means of the extreme shares by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.entropy import largest_mean, renyi, smallest_mean
from vlmend.errors import BadParameter

ALPHAS = (0.5, 1.0, 2.0, math.inf)
LOGITS = st.lists(st.floats(-20, 20), min_size=2, max_size=8).map(torch.tensor)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_of_a_uniform_distribution_it_is_ln_v_and_of_a_sure_one_0(alpha: float) -> None:
    assert float(renyi(torch.zeros(32_000), alpha)) == pytest.approx(math.log(32_000))
    sure = torch.full((32_000,), -math.inf)
    sure[7] = 0
    assert float(renyi(sure, alpha)) == pytest.approx(0, abs=1e-12)


def test_worked_out_by_hand() -> None:
    """p = 1/2, 1/4, 1/4: Shannon 1.5 ln 2; of order 2 -ln(3/8); of order 1/2 2 ln(sqrt(1/2) + 1); largest ln 2."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log()
    found = [float(renyi(logits, alpha)) for alpha in ALPHAS]
    assert found == pytest.approx([2 * math.log(0.5**0.5 + 1), 1.5 * math.log(2), -math.log(3 / 8), math.log(2)])


@given(LOGITS)
def test_it_falls_with_alpha_and_nears_shannon_at_1(logits: torch.Tensor) -> None:
    found = [float(renyi(logits, alpha)) for alpha in (0.25, 0.5, 0.999, 1.0, 1.001, 2.0, math.inf)]
    assert all(a >= b - 1e-9 for a, b in pairwise(found))
    assert found[2] - found[4] < 0.2


def test_the_largest_and_the_smallest_share_one_value_at_least() -> None:
    values = torch.tensor([4.0, 1.0, 3.0, 2.0])
    assert [largest_mean(values, share) for share in (0.0, 0.5, 1.0)] == [4, 3.5, 2.5]
    assert [smallest_mean(values, share) for share in (0.0, 0.5, 1.0)] == [1, 1.5, 2.5]


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_an_order_that_is_not_above_0_is_refused(alpha: float) -> None:
    with pytest.raises(BadParameter, match="cannot be"):
        renyi(torch.zeros(3), alpha)
