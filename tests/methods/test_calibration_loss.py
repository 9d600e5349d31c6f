"""Calibration loss: the map by hand, its eigenvalues, and what is drawn together while the rest stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.dual_edits import MapImages, MapTexts
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.calibration_loss import CalibrationLoss
from vlmend.methods.maps import drawn_together
from vlmend.testing import tiny_clip

TEXTS = tuple(Example(f"{k}", text, group=text[-3:]) for k, text in enumerate(("a cat", "my cat", "a dog", "my dog")))
PICTURES = tuple(Example(f"p{k}", group=f"scene {k // 2}", image=noise_image(16, k)) for k in range(4))


def test_two_dimensions_by_hand() -> None:
    """Pairs that differ by 1 and by 3 along the first axis: M = diag(5, 0), and with lambda 0.2 it is halved."""
    found = drawn_together(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), 0.2)
    assert torch.allclose(found, torch.diag(torch.tensor([0.5, 1.0], dtype=torch.float64)))


@given(st.integers(0, 1000), st.floats(0, 1000))
def test_it_is_symmetric_with_eigenvalues_of_one_over_one_plus_lambda_mu(seed: int, calibration: float) -> None:
    gaps = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found, mu = drawn_together(gaps, calibration), torch.linalg.eigvalsh(gaps.T @ gaps / 3).clamp(min=0)
    assert torch.allclose(found, found.T)
    assert torch.allclose(torch.linalg.eigvalsh(found), (1 / (1 + calibration * mu)).sort().values, atol=1e-9)


def test_pairs_come_together_the_more_it_weighs_and_at_nothing_all_stays() -> None:
    target, data = tiny_clip(), Dataset("pairs", TEXTS + PICTURES)
    before = target.embed_texts(["a cat", "my cat"]), target.embed_images([row.image for row in PICTURES if row.image])
    apart: list[tuple[float, float]] = []
    for calibration in (0.0, 10.0, 1000.0):
        view = target.with_mend(CalibrationLoss(calibration=calibration).fit(target, data, seed=0))
        texts, images = (
            view.embed_texts(["a cat", "my cat"]), view.embed_images([row.image for row in PICTURES if row.image]),
        )  # fmt: skip
        if not calibration:
            assert torch.allclose(texts, before[0], atol=1e-6)
            assert torch.allclose(images, before[1], atol=1e-6)
        apart.append((float((texts[0] - texts[1]).norm()), float((images[0] - images[1]).norm())))
    for tower in (0, 1):
        assert apart[0][tower] > apart[1][tower] > apart[2][tower]


def test_of_each_tower_by_pairs_of_its_own_kind() -> None:
    target, data = tiny_clip(), Dataset("pairs", TEXTS + PICTURES)
    kinds = {towers: [type(edit) for edit in CalibrationLoss(towers=towers).fit(target, data, seed=0).edits]
             for towers in ("both", "vision", "text")}  # fmt: skip
    assert kinds == {"both": [MapTexts, MapImages], "vision": [MapImages], "text": [MapTexts]}
    with pytest.raises(BadData, match="2 pairs of texts and 0 of pictures"):
        CalibrationLoss().fit(target, Dataset("texts", TEXTS), seed=0)
    CalibrationLoss(towers="text").fit(target, Dataset("texts", TEXTS), seed=0)


def test_rows_of_no_category_are_no_pairs_and_weights_below_nothing_are_refused() -> None:
    rows = tuple(Example(str(k), f"a {k}") for k in range(4))
    with pytest.raises(BadData, match="0 pairs of texts"):
        CalibrationLoss(towers="text").fit(tiny_clip(), Dataset("none", rows), seed=0)
    with pytest.raises(BadParameter, match="calibration=-1"):
        CalibrationLoss(calibration=-1.0)
