"""Calibrated projection: numbers worked out by hand and the laws of the closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.dual_edits import MapTexts
from vlmend.core.examples import Dataset, Example
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.text_projection import TextProjection, calibrated_projection
from vlmend.testing import tiny_clip


def drawn(seed: int, rows: int, width: int = 8) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_two_dimensions_by_hand() -> None:
    """A = (1, 0), one pair that differs by (1, 1), lambda 1: M = [[1, 1], [1, 1]], (I + M)^-1 = [[2, -1], [-1, 2]] / 3,
    and P0 keeps the second row alone: P = [[0, 0], [-1, 2]] / 3."""
    found = calibrated_projection(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [-1 / 3, 2 / 3]]))


def test_the_projection_stands_on_the_left() -> None:
    """Nothing that comes out lies along A; yet what goes in along A comes out as something else."""
    found = calibrated_projection(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 1.0)
    assert (torch.tensor([1.0, 0.0]) @ found).tolist() == [0.0, 0.0]
    torch.testing.assert_close(found @ torch.tensor([1.0, 0.0]), torch.tensor([0.0, -1 / 3]))


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12), st.floats(0, 1e4))
def test_what_comes_out_has_no_part_along_the_attribute(seed: int, m: int, pairs: int, calibration: float) -> None:
    spurious = drawn(seed, m)
    found = calibrated_projection(spurious, drawn(seed + 1, pairs), calibration)
    assert (spurious @ found).abs().max() < 1e-4


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_without_calibration_it_projects_once_and_for_all(seed: int, m: int) -> None:
    found = calibrated_projection(drawn(seed, m), drawn(seed + 1, 3), 0.0)
    torch.testing.assert_close(found @ found, found, atol=1e-5, rtol=0)
    torch.testing.assert_close(found, found.T, atol=1e-6, rtol=0)


@given(st.integers(0, 10_000))
def test_prompts_said_twice_are_projected_out_once(seed: int) -> None:
    spurious, gaps = drawn(seed, 2), drawn(seed + 1, 4)
    twice = calibrated_projection(torch.cat([spurious, spurious]), gaps, 10.0)
    torch.testing.assert_close(twice, calibrated_projection(spurious, gaps, 10.0), atol=1e-5, rtol=0)


@given(st.integers(0, 10_000))
def test_turning_the_space_turns_the_projection(seed: int) -> None:
    spurious, gaps = drawn(seed, 2), drawn(seed + 1, 4)
    turn = torch.linalg.qr(drawn(seed + 2, 8).double()).Q.float()
    found = calibrated_projection(spurious @ turn.T, gaps @ turn.T, 100.0)
    torch.testing.assert_close(found, turn @ calibrated_projection(spurious, gaps, 100.0) @ turn.T, atol=1e-4, rtol=0)


def test_pairs_come_the_nearer_the_stronger_the_calibration() -> None:
    spurious, gaps = drawn(0, 2, 32), drawn(1, 10, 32)
    left = [(gaps @ calibrated_projection(spurious, gaps, c).T).norm(dim=1).mean() for c in (0.0, 1.0, 100.0, 1e5)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 1e-3 * left[0]


def test_a_fit_reads_the_prompts_of_its_groups() -> None:
    target = tiny_clip()
    rows = [("a man", "spurious"), ("a woman", "spurious"), ("a man cook", "cook"), ("a woman cook", "cook")]
    data = Dataset("d", tuple(Example(text, text, "benign", group) for text, group in rows))
    mend = TextProjection(10.0).fit(target, data, seed=0)
    embedded = target.embed_texts([text for text, _ in rows])
    (edit,) = mend.edits
    assert isinstance(edit, MapTexts)
    by_hand = calibrated_projection(embedded[:2], embedded[2:3] - embedded[3:], 10.0)
    torch.testing.assert_close(edit.matrix, by_hand, atol=1e-5, rtol=0)
    mended = target.with_mend(mend).embed_texts(["a good cook"])
    torch.testing.assert_close(mended.norm(), torch.tensor(1.0))
    assert (mended @ embedded[:2].T).abs().max() < 1e-5


def test_data_without_both_kinds_and_a_negative_strength_are_refused() -> None:
    alone = Dataset("alone", (Example("a", "a man", "benign", "spurious"), Example("b", "a cook", "benign", "cook")))
    with pytest.raises(BadData, match="1 prompts of category 'spurious' and 0 pairs"):
        TextProjection().fit(tiny_clip(), alone, seed=0)
    with pytest.raises(BadParameter, match="below 0"):
        TextProjection(-1.0)


def test_built_in_prompts_name_men_and_women_of_twenty_professions() -> None:
    data = TextProjection().builtin()
    assert [e.prompt for e in data.examples[:2]] == ["a photo of a man", "a photo of a woman"]
    assert len(data.examples) == 42
    assert len({e.group for e in data.examples}) == 21
