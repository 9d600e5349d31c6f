"""Projection tuning: the projection by hand and what it cannot change, the least-squares map by hand, the head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.metrics.calibration import nll
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.projection_tuning import ProjectionTuning, least_squares_map, span_projection
from vlmend.models.dual.encoder import DualEncoder
from vlmend.testing import tiny_clip
from vlmend.training.adversary import Adversary, worst_pixels

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
TEXTS = [f"a photo of a {name}" for name in NAMES]
RIGHT = torch.arange(6) % 3
QUICK = ProjectionTuning(epsilon=0.1, inner=3, steps=60, rate=1e-2)


def drawn(rows: int, width: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_into_the_span_of_two_axes_the_third_is_gone() -> None:
    texts = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 1.0, 0]])
    matrix, count = span_projection(texts)
    assert count == 2
    torch.testing.assert_close(matrix, torch.diag(torch.tensor([1.0, 1, 0])))


@given(st.integers(1, 12), st.integers(0, 1000))
def test_the_projection_is_one_and_never_changes_which_name_wins(count: int, seed: int) -> None:
    """Idempotent, symmetric, the identity on texts and wherever they span it all; t . P i = t . i."""
    texts, images = drawn(count, 8, seed), drawn(20, 8, seed + 1)
    matrix, rank = span_projection(texts)
    torch.testing.assert_close(matrix @ matrix, matrix, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(texts @ matrix, texts, atol=1e-5, rtol=0)
    assert rank == min(count, 8)
    if count >= 8:
        torch.testing.assert_close(matrix, torch.eye(8), atol=1e-5, rtol=0)
    scores = images @ texts.T
    torch.testing.assert_close(images @ matrix @ texts.T, scores, atol=1e-5, rtol=0)


def test_with_a_rank_it_keeps_the_leading_directions() -> None:
    texts = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    matrix, count = span_projection(texts, 1)
    assert count == 1
    torch.testing.assert_close(matrix, torch.tensor([[1.0, 0], [0, 0]]))


def test_names_that_span_everything_are_said_to_change_nothing() -> None:
    """Twenty names in 16 dimensions."""
    rows = [Example(str(k), image=IMAGES[0], answers=(f"{'abcdefghijklmnopqrst'[k]} {k}",)) for k in range(20)]
    target = tiny_clip()
    mend = ProjectionTuning(how="span").fit(target, Dataset("many", tuple(rows)), seed=0)
    assert "the map is the identity and changes nothing" in mend.card.notes[0]
    view = target.with_mend(mend)
    torch.testing.assert_close(view.embed_images(IMAGES), target.embed_images(IMAGES), atol=1e-5, rtol=0)


def test_the_least_squares_map_by_hand() -> None:
    """One number wide: w least in (w 3 - 1)^2 + (w - 1)^2 + k (w - 1)^2 is (3 + 1 + k) / (9 + 1 + k)."""
    attacked, clean = torch.tensor([[3.0]]), torch.tensor([[1.0]])
    for keep in (0.5, 2.0):
        found = least_squares_map(attacked, clean, keep)
        assert float(found) == pytest.approx((4 + keep) / (10 + keep))


@given(st.integers(0, 1000))
def test_no_map_nearby_costs_less(seed: int) -> None:
    attacked, clean = drawn(12, 4, seed), drawn(12, 4, seed + 1)

    def cost(matrix: Tensor) -> float:
        kept = 0.1 * (matrix - torch.eye(4)).square().sum()
        apart = (attacked @ matrix.T - clean).square().sum(1) + (clean @ matrix.T - clean).square().sum(1)
        return float(apart.mean() + kept)

    found = least_squares_map(attacked, clean, 0.1)
    assert all(cost(found + 0.05 * drawn(4, 4, seed + k)) >= cost(found) - 1e-6 for k in range(2, 6))


def test_pictures_that_no_attack_moved_leave_the_identity() -> None:
    clean = drawn(12, 4, 0)
    torch.testing.assert_close(least_squares_map(clean, clean, 0.1), torch.eye(4), atol=1e-5, rtol=0)


def test_the_head_makes_right_names_likelier_on_the_attack_it_saw_and_texts_stay() -> None:
    target = tiny_clip()
    attacked = _attacked(target)
    view = target.with_mend(replace(QUICK, keep=1e-3).fit(target, DATA, seed=0))
    assert _cost(view, attacked) < _cost(target, attacked) - 0.1
    assert torch.equal(view.embed_texts(TEXTS), target.embed_texts(TEXTS))


def test_a_head_that_is_held_fast_is_the_identity() -> None:
    mend = replace(QUICK, keep=1e6, rate=1e-4).fit(tiny_clip(), DATA, seed=0)
    (edit,) = mend.edits
    assert isinstance(edit, MapImages)
    torch.testing.assert_close(edit.matrix, torch.eye(16), atol=1e-2, rtol=0)


def test_one_name_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        ProjectionTuning().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    for wrong in ({"epsilon": 0.0}, {"inner": 0}, {"keep": 0.0}, {"steps": 0}, {"rate": 0.0}, {"rank": 3}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            ProjectionTuning(**wrong)
    with pytest.raises(BadParameter, match="rank=0"):
        ProjectionTuning(how="span", rank=0)


def _attacked(target: DualEncoder) -> Tensor:
    """Embeddings of the pictures under an attack on the target itself."""
    pixels, texts = target.pixels(IMAGES), target.embed_texts(TEXTS)

    def loss(values: Tensor) -> Tensor:
        return nll(target.scored(target.embed_pixels(replace(pixels, values=values)), texts), RIGHT, "softmax").mean()

    values = worst_pixels(loss, pixels.values, Adversary(0.1, 3, 0.25 / 3), 0)
    with torch.no_grad():
        return target.embed_pixels(replace(pixels, values=values))


def _cost(view: DualEncoder, embedded: Tensor) -> float:
    """What the view makes of embeddings of the bare model."""
    (matrix,) = [edit.matrix for edit in view.edits if isinstance(edit, MapImages)] or [torch.eye(16)]
    logits = view.scored(normalize(embedded @ matrix.T, dim=1), view.embed_texts(TEXTS))
    return float(nll(logits, RIGHT, view.pair_kind).mean())
