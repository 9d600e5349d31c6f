"""Probabilities of pairs and the temperature that fits them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.calibration import as_probabilities, best_temperature, brier, nll


def test_likelihoods_by_hand() -> None:
    logits, right = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])
    assert nll(logits, right, "softmax").item() == pytest.approx(math.log(4 / 3))
    # Sigmoids 3/4 for the right text and 1/2 for the other one.
    assert nll(logits, right, "sigmoid").item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert as_probabilities(logits, "softmax").tolist() == [pytest.approx([0.75, 0.25])]
    assert as_probabilities(logits, "sigmoid").tolist() == [pytest.approx([0.75, 0.5])]


@given(st.floats(0.2, 8.0), st.integers(0, 5))
def test_logits_that_were_stretched_are_found_to_be(stretch: float, seed: int) -> None:
    """Right texts drawn from the softmax itself: the best temperature of stretched logits is stretched as much."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(400, 5, generator=generator, dtype=torch.float64) * 2
    right = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    own = best_temperature(logits, right, "softmax")
    assert best_temperature(logits * stretch, right, "softmax") == pytest.approx(own * stretch, rel=1e-3)
    assert own == pytest.approx(1, abs=0.35)


def test_where_every_image_is_right_the_smaller_the_better() -> None:
    assert 0.01 <= best_temperature(torch.eye(3), torch.arange(3), "softmax") < 0.05


def test_brier_by_hand() -> None:
    """Softmax 3/4 and 1/4: 1/16 + 1/16. Sigmoids 3/4 and 1/2: the mean of 1/16 and 1/4. A wrong choice: 9/16 twice."""
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert brier(logits, torch.tensor([0]), "softmax").item() == pytest.approx(1 / 8)
    assert brier(logits, torch.tensor([0]), "sigmoid").item() == pytest.approx(5 / 32)
    assert brier(logits, torch.tensor([1]), "softmax").item() == pytest.approx(9 / 8)
