"""Bidirectional constraints: cycle consistency by hand and its laws, one direction alone, and without terms FLYP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.bidirectional import Bidirectional, apart
from vlmend.methods.robustness.flyp import Flyp
from vlmend.testing import full_digest, tiny_clip
from vlmend.training.losses import contrastive_loss

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
TEXTS = [f"a photo of a {name}" for name in NAMES]
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 3, "rate": 1e-3}
PLAIN = Bidirectional(cross=0.0, within=0.0, keep=0.0, **SETTINGS)


def vectors(seed: int, count: int = 4) -> torch.Tensor:
    return normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_two_pairs_by_hand() -> None:
    """Cosines 0.6 one way and 0.2 the other differ by 0.4 in both rows: 0.16 each, and their mean is 0.16."""
    cosines = torch.tensor([[1.0, 0.6], [0.2, 1.0]])
    assert float(apart(cosines, cosines.T)) == pytest.approx(0.16)


@given(st.integers(0, 1000))
def test_symmetric_cosines_and_a_turned_copy_cost_nothing(seed: int) -> None:
    """Texts that are the pictures turned have the same geometry among themselves; equal ones symmetric cosines."""
    images = vectors(seed)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed + 1)))
    texts = images @ turn
    assert float(apart(images @ images.T, texts @ texts.T)) == pytest.approx(0, abs=1e-9)
    assert float(apart(images @ images.T, (images @ images.T).T)) == 0


@given(st.integers(0, 1000))
def test_pictures_and_texts_may_be_swapped(seed: int) -> None:
    images, texts = vectors(seed), vectors(seed + 5000)
    for one, other in ((images, texts), (texts, images)):
        crossed, within = apart(one @ other.T, other @ one.T), apart(one @ one.T, other @ other.T)
        torch.testing.assert_close(crossed, apart(images @ texts.T, texts @ images.T))
        torch.testing.assert_close(within, apart(images @ images.T, texts @ texts.T))
    torch.testing.assert_close(contrastive_loss(images, texts, 3.0), contrastive_loss(texts, images, 3.0))
    torch.testing.assert_close(
        contrastive_loss(images, texts, 3.0, back=0.2), contrastive_loss(texts, images, 3.0, back=0.8)
    )


def test_one_direction_is_the_cross_entropy_of_pictures_among_texts_alone() -> None:
    images, texts = vectors(0), vectors(1)
    by_hand = -(3.0 * images @ texts.T).log_softmax(1).diagonal().mean()
    torch.testing.assert_close(contrastive_loss(images, texts, 3.0, back=0.0), by_hand)


def test_without_its_terms_it_is_flyp_to_the_bit_and_each_term_alone_changes_it() -> None:
    target = tiny_clip()
    plain = target.with_mend(Flyp(**SETTINGS).fit(target, DATA, seed=0)).embed_images(IMAGES)
    assert torch.equal(target.with_mend(PLAIN.fit(target, DATA, seed=0)).embed_images(IMAGES), plain)
    for term in ({"cross": 5.0}, {"within": 5.0}, {"keep": 5.0}, {"back": 0.0}):
        other = target.with_mend(replace(PLAIN, **term).fit(target, DATA, seed=0)).embed_images(IMAGES)
        assert not torch.equal(other, plain)


def test_what_the_model_said_before_is_kept_better_with_a_teacher() -> None:
    """Mean absolute change of the probabilities among the names, of the same batches."""
    target = tiny_clip()
    digest = full_digest(target.towers.model)
    longer = replace(PLAIN, steps=20, batch=6)
    before = target.logits(IMAGES, TEXTS).softmax(1)
    changes = [
        float((target.with_mend(one.fit(target, DATA, seed=0)).logits(IMAGES, TEXTS).softmax(1) - before).abs().mean())
        for one in (longer, replace(longer, keep=20.0))
    ]
    assert changes[1] < changes[0] / 2
    assert full_digest(target.towers.model) == digest


def test_one_name_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        Bidirectional().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    wrongs: tuple[dict[str, Any], ...] = (
        {"back": -0.1}, {"back": 1.1}, {"cross": -1.0}, {"within": -1.0}, {"keep": -1.0}, {"steps": 0},
    )  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Bidirectional(**wrong)
