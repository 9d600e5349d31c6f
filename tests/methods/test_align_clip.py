"""AlignCLIP: the separation by hand, none between texts that mean the same, without it FLYP."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.metrics.modality import gap_shares
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.align_clip import AlignClip, separation
from vlmend.methods.robustness.flyp import Flyp
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 3, "rate": 1e-3}


def vectors(seed: int) -> torch.Tensor:
    return normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_two_pairs_by_hand() -> None:
    """Pictures with cosine 0.8, texts half alike: 0.4 against the pair's 0.9, times 2: ln(1 + exp(0.8 - 1.8))."""
    images = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    alike = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    wanted = math.log(1 + math.exp(2 * (0.4 - 0.9)))
    assert float(separation(images, torch.tensor([0.9, 0.9]), alike, 2.0)) == pytest.approx(wanted, abs=1e-6)


@given(st.integers(0, 1000))
def test_pictures_whose_texts_mean_the_same_are_not_pushed_apart(seed: int) -> None:
    """No gradient reaches the pictures; with texts that mean nothing alike it does."""
    images = vectors(seed).requires_grad_()
    own = torch.zeros(4)
    (none,) = torch.autograd.grad(separation(images, own, torch.ones(4, 4), 5.0), images)
    (some,) = torch.autograd.grad(separation(images, own, torch.eye(4), 5.0), images)
    assert none.abs().max() == 0
    assert some.abs().max() > 1e-4


def test_without_separation_it_is_flyp_to_the_bit_and_with_it_the_gap_closes() -> None:
    """Random towers lie far apart; the same batches bring them nearer with the term than without."""
    target = tiny_clip()
    plain = target.with_mend(Flyp(**SETTINGS).fit(target, DATA, seed=0))
    without = AlignClip(separate=0.0, **SETTINGS)
    assert torch.equal(
        target.with_mend(without.fit(target, DATA, seed=0)).embed_images(IMAGES), plain.embed_images(IMAGES)
    )
    texts = [f"a photo of a {NAMES[k % 3]}" for k in range(6)]
    longer = replace(without, steps=30, batch=6)
    views = (target.with_mend(one.fit(target, DATA, seed=0)) for one in (longer, replace(longer, separate=1.0)))
    off, on = (float(gap_shares(view.embed_images(IMAGES), view.embed_texts(texts)).mean()) for view in views)
    assert on < off


def test_one_name_and_a_weight_below_nothing_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        AlignClip().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    with pytest.raises(BadParameter, match="separate=-1"):
        AlignClip(separate=-1.0)
