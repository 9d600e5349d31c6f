"""Closed-form debiasing: the trade-off worked out by hand and the slow way, its bound, and what a fit reads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vlmend.core.dual_edits import TurnFrom
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData
from vlmend.methods.fairness.closed_form import ClosedForm, attribute_basis
from vlmend.models.editing.embeddings import turned
from vlmend.testing import tiny_clip

WIDTH = 8


def drawn(seed: int, rows: int = 1) -> torch.Tensor:
    numbers = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(numbers, dim=1)


def basis_of(seed: int, rank: int) -> torch.Tensor:
    return torch.linalg.qr(drawn(seed, rank).T).Q.T


def parts(units: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lengths along and across."""
    along = units @ basis.T @ basis
    return along.norm(dim=1), (units - along).norm(dim=1)


def test_two_dimensions_by_hand() -> None:
    """e = (0.6, 0.8), A = the first axis: r = (2.8 - 0.8 sqrt(4.6)) / (4 - 1.28) = 0.39860, so 0.23916 of 0.6 is left;
    the cosine with e is 1 - 0.39860 * 0.2 = 0.92028: 39.9 % of the largest loss, 1 - 0.8."""
    found = turned(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))[0]
    torch.testing.assert_close(found, torch.tensor([0.23916, math.sqrt(1 - 0.23916**2)]), atol=1e-5, rtol=0)
    assert float(found @ torch.tensor([0.6, 0.8])) == pytest.approx(0.92028, abs=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_it_is_the_papers_formula(seed: int, rank: int) -> None:
    """alpha = (E - n sqrt(E^2 - p^2)) / (E^2 + n^2), E = p + (1 - n) / p, of the lengths p along and n across."""
    e, basis = drawn(seed, 5), basis_of(seed + 1, rank)
    along = e @ basis.T @ basis
    p, n = (part[:, None] for part in parts(e, basis))
    E = p + (1 - n) / p
    alpha = (E - n * (E * E - p * p).sqrt()) / (E * E + n * n)
    slow = alpha * along / p + (1 - alpha * alpha).sqrt() * (e - along) / n
    torch.testing.assert_close(turned(e, basis), slow, atol=1e-9, rtol=0)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_what_is_left_and_what_is_lost_weigh_alike(seed: int, rank: int) -> None:
    """Each as a share of its largest: all of the part along, and the loss of cosine that leaves none of it."""
    e, basis = drawn(seed, 5), basis_of(seed + 1, rank)
    z = turned(e, basis)
    (before, across), (after, _) = parts(e, basis), parts(z, basis)
    left, lost = after / before, (1 - (z * e).sum(1)) / (1 - across)
    torch.testing.assert_close(left, lost, atol=1e-6, rtol=0)
    assert ((3 - math.sqrt(5)) / 2 - 1e-9 <= left).all()
    assert (left <= 0.5 + 1e-9).all()


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_bound_on_utility_holds_and_the_length_is_1(seed: int, rank: int) -> None:
    """Cosine with itself at least (1 + n) / 2, n the length across; so no score with a text moves by more than
    sqrt(1 - n)."""
    e, texts, basis = drawn(seed, 5), drawn(seed + 2, 20), basis_of(seed + 1, rank)
    z, (_, across) = turned(e, basis), parts(e, basis)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5).double())
    assert ((z * e).sum(1) >= (1 + across) / 2 - 1e-9).all()
    assert (((z - e) @ texts.T).abs().amax(1) <= (1 - across).clamp_min(0).sqrt() + 1e-9).all()


@given(st.integers(0, 10_000))
def test_an_embedding_across_the_subspace_or_within_it_stays(seed: int) -> None:
    basis = basis_of(seed, 2)
    across = normalize(drawn(seed + 1) - drawn(seed + 1) @ basis.T @ basis, dim=1)
    torch.testing.assert_close(turned(across, basis), across, atol=1e-6, rtol=0)
    assert torch.equal(turned(torch.eye(WIDTH)[:1], torch.eye(WIDTH)[:1]), torch.eye(WIDTH)[:1])


def test_the_basis_spans_the_differences_of_prototypes() -> None:
    """Prototypes (1, 0, 0) (of two texts) and (0, 1, 0): one direction, (1, -1, 0) / sqrt(2)."""
    texts = [torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.0, -0.1]]), torch.tensor([[0.0, 1.0, 0.0]])]
    (direction,) = attribute_basis(texts)
    wanted = torch.tensor([1.0, -1.0, 0.0]) / math.sqrt(2)
    torch.testing.assert_close(direction * direction[0].sign(), wanted, atol=1e-6, rtol=0)
    third = [*texts, texts[0]]
    assert len(attribute_basis(third)) == 1
    assert len(attribute_basis([texts[0], texts[0]])) == 0


def test_a_fit_turns_the_towers_that_are_asked_for() -> None:
    target, images, texts = tiny_clip(), [noise_image(16, 1)], ["a cook"]
    mend = ClosedForm().fit(target, ClosedForm().builtin(), seed=0)
    assert [edit.tower for edit in mend.edits if isinstance(edit, TurnFrom)] == ["vision", "text"]
    view = target.with_mend(mend)
    (edit, _) = mend.edits
    assert isinstance(edit, TurnFrom)
    torch.testing.assert_close(view.embed_images(images), turned(target.embed_images(images), edit.basis))
    torch.testing.assert_close(view.embed_texts(texts), turned(target.embed_texts(texts), edit.basis))
    alone = target.with_mend(ClosedForm("text").fit(target, ClosedForm().builtin(), seed=0))
    assert torch.equal(alone.embed_images(images), target.embed_images(images))
    assert not torch.equal(alone.embed_texts(texts), target.embed_texts(texts))


def test_one_group_and_groups_that_are_the_same_are_refused() -> None:
    one = Dataset("one", (Example("a", "a man", group="man"), Example("b", "a boy", group="man")))
    with pytest.raises(BadData, match="prompts of 1 groups \\(man\\)"):
        ClosedForm().fit(tiny_clip(), one, seed=0)
    same = Dataset("same", (Example("a", "a man", group="man"), Example("b", "a man", group="male")))
    with pytest.raises(BadData, match="have the same embeddings"):
        ClosedForm().fit(tiny_clip(), same, seed=0)
