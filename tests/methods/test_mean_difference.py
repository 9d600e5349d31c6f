"""Mean difference: directions by hand, means that are equal afterwards, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.errors import BadData
from vlmend.methods.fairness.mean_difference import MeanDifference, basis_of
from vlmend.testing import tiny_clip


def people(*groups: str) -> list[Example]:
    return [Example(str(k), group=group) for k, group in enumerate(groups)]


def test_one_direction_of_two_groups_by_hand() -> None:
    """Differences (2, 0, 0) and (0, 2, 0), man less woman: mean (1, 1, 0), whatever the order within a pair."""
    seen = torch.tensor([[2.0, 0, 1], [0, 0, 1], [0, 1, 3], [0, 3, 3]])
    basis = basis_of(seen, people("man", "woman", "woman", "man"), [(0, 1), (2, 3)])
    assert basis.shape == (1, 3)
    torch.testing.assert_close(basis[0].abs(), torch.tensor([0.5, 0.5, 0]).sqrt())


def test_three_groups_give_two_directions_and_unknown_groups_none() -> None:
    seen = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 5], [0, 0, 0, 0]])
    rows = people("a", "b", "a", "c", "", "a")
    assert len(basis_of(seen, rows, [(0, 1), (2, 3)])) == 2
    assert len(basis_of(seen, rows, [(4, 5)])) == 0
    assert len(basis_of(seen, rows, [(0, 2)])) == 0


@given(st.integers(0, 1000))
def test_afterwards_the_groups_have_one_mean_and_what_lies_across_stays(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(12, 6, generator=generator)
    rows, pairs = people(*(["x", "y"] * 6)), [(2 * k, 2 * k + 1) for k in range(6)]
    basis = basis_of(seen, rows, pairs)
    mapped = seen - seen @ basis.T @ basis
    torch.testing.assert_close(mapped[::2].mean(0), mapped[1::2].mean(0), atol=1e-4, rtol=0)
    across = torch.randn(6, generator=generator)
    across -= basis[0] * (basis[0] @ across)
    torch.testing.assert_close(across - basis.T @ (basis @ across), across, atol=1e-4, rtol=0)


def test_a_fit_is_one_projection_and_needs_groups() -> None:
    target, method = tiny_clip(seed=0), MeanDifference()
    data = method.sample_data()
    (edit,) = method.fit(target, data, seed=0).edits
    assert isinstance(edit, MapImages)
    torch.testing.assert_close(edit.matrix @ edit.matrix, edit.matrix, atol=1e-5, rtol=0)
    assert torch.linalg.matrix_rank(edit.matrix) == len(edit.matrix) - 1
    nameless = Dataset("nameless", tuple(replace(row, group="") for row in data.examples))
    with pytest.raises(BadData, match="No pair of nameless"):
        method.fit(target, nameless, seed=0)
