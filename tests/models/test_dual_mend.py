"""Views of dual encoders with mends: what each kind of edit does, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tests.models import duals
from torch.nn.functional import normalize

from vlmend.core.dual_edits import AcceptAbove, DualEdit, MapTexts, ScaleLogits
from vlmend.core.edits import AddVector, Edit
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.metrics.detection import mcm
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, MendMismatch
from vlmend.models.dual.encoder import DualEncoder, dual_of
from vlmend.testing import tiny_clip

IMAGES = [noise_image(16, k) for k in range(4)]
TEXTS = ["a cat", "two dogs", "x"]


def mend_of(target: DualEncoder, *edits: Edit) -> Mend:
    return Mend(edits, MendCard("m", {}, target.name, target.model_digest, "d", "", 0, {}, {}, ""))


def matrix(width: int) -> torch.Tensor:
    return torch.randn(width, width, generator=torch.Generator().manual_seed(0))


def test_texts_are_mapped_and_have_length_1_again() -> None:
    target = tiny_clip()
    P = matrix(target.width)
    view = target.with_mend(mend_of(target, MapTexts(P, 0.5)))
    plain = target.embed_texts(TEXTS)
    torch.testing.assert_close(view.embed_texts(TEXTS), normalize(0.5 * plain + 0.5 * plain @ P.T, dim=1))
    assert torch.equal(view.embed_images(IMAGES), target.embed_images(IMAGES))
    cosines = view.embed_images(IMAGES) @ view.embed_texts(TEXTS).T
    torch.testing.assert_close(view.logits(IMAGES, TEXTS), target.towers.scale * cosines)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_logits_are_scaled_whole_and_the_order_stays(name: str) -> None:
    """With a sigmoid the bias is scaled too: it is a part of the logit."""
    target = dual_of(*duals.built(name), name)
    view = target.with_mend(mend_of(target, ScaleLogits(4.0)))
    torch.testing.assert_close(view.logits(IMAGES, TEXTS), target.logits(IMAGES, TEXTS) / 4)
    half = target.with_mend(mend_of(target, ScaleLogits(4.0, 0.5)))
    torch.testing.assert_close(half.logits(IMAGES, TEXTS), target.logits(IMAGES, TEXTS) * 0.625)
    assert [r.order for r in view.rank(IMAGES, TEXTS)] == [r.order for r in target.rank(IMAGES, TEXTS)]


def test_images_at_the_threshold_are_accepted_and_those_below_are_not() -> None:
    target = tiny_clip()
    scores = mcm(target.embed_images(IMAGES) @ target.embed_texts(TEXTS).T)
    threshold = float(scores.sort().values[1])
    view = target.with_mend(mend_of(target, AcceptAbove(tuple(TEXTS), threshold)))
    assert view.accepts(IMAGES).sum() == 3
    assert target.accepts(IMAGES).all()
    stricter = view.with_mend(mend_of(target, AcceptAbove(tuple(TEXTS), 1.0)))
    assert not stricter.accepts(IMAGES).any()


def test_mends_act_in_their_order_and_show_in_the_id() -> None:
    target = tiny_clip()
    one, two = mend_of(target, MapTexts(matrix(target.width))), mend_of(target, MapTexts(matrix(target.width).T))
    first, second = target.with_mend(one).with_mend(two), target.with_mend(two).with_mend(one)
    assert not torch.allclose(first.embed_texts(TEXTS), second.embed_texts(TEXTS))
    assert first.id == f"{target.name}+m@{one.digest[:8]}+m@{two.digest[:8]}"
    assert target.id == target.name


@pytest.mark.parametrize("edit", [MapTexts(torch.eye(16)), ScaleLogits(2.0), AcceptAbove(("x",), 0.5)], ids=repr)
def test_scaled_to_0_an_edit_is_gone(edit: DualEdit) -> None:
    target = tiny_clip()
    assert target.with_mend(mend_of(target, edit).scaled(0.0)).edits == ()
    assert len(target.with_mend(mend_of(target, edit)).edits) == 1


def test_edits_of_models_that_answer_and_mends_of_others_are_refused() -> None:
    target = tiny_clip()
    with pytest.raises(BadParameter, match="no place for AddVector"):
        target.with_mend(mend_of(target, AddVector(Site("text", 0), torch.ones(32))))
    with pytest.raises(MendMismatch, match="was fitted on tiny-clip-0"):
        tiny_clip(seed=1).with_mend(mend_of(target, ScaleLogits(2.0)))
