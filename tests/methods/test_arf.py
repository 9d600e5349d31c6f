"""ARF: the nearest other picture by hand, never the picture itself, each anchor at work, without them FLYP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.contrastive import same
from vlmend.methods.robustness.arf import Arf, nearest_others
from vlmend.methods.robustness.flyp import Flyp
from vlmend.pictures.galleries import UNSEEN_CATEGORIES
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
OTHERS = [noise_image(16, k) for k in range(6, 10)]
NAMED = tuple(
    Example(str(k), image=image, answers=(NAMES[k % 3],), caption=f"one {NAMES[k % 3]} seen from {k}")
    for k, image in enumerate(IMAGES)
)
POOL = tuple(Example(f"pool {k}", image=image, caption=f"a dog {k}") for k, image in enumerate(OTHERS))
DATA = Dataset("named and pool", (*NAMED, *POOL))
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 3, "rate": 1e-3}


def test_the_nearest_of_the_pool_is_found_and_a_picture_is_never_its_own_anchor() -> None:
    """The first picture is in the pool with cosine 1; its nearest other one has 0.7."""
    pool = [IMAGES[0], OTHERS[0], OTHERS[1]]
    cosines = torch.tensor([[1.0, 0.7, 0.2], [0.3, 0.1, 0.9]])
    assert nearest_others(cosines, IMAGES[:2], pool) == [1, 2]
    with pytest.raises(BadData, match="no picture other"):
        nearest_others(cosines[:1, :1], IMAGES[:1], IMAGES[:1])


def test_texts_that_are_the_same_are_no_negatives() -> None:
    assert same(["a", "b", "a"]).tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_without_anchors_it_is_flyp_to_the_bit_and_each_kind_alone_changes_it() -> None:
    target = tiny_clip()
    named = Dataset("named", NAMED)
    plain = target.with_mend(Flyp(**SETTINGS).fit(target, named, seed=0)).embed_images(IMAGES)
    for weights, equal in (((0.0, 0.0), True), ((1.0, 0.0), False), ((0.0, 1.0), False)):
        method = Arf(captions=weights[0], retrieved=weights[1], **SETTINGS)
        assert torch.equal(target.with_mend(method.fit(target, DATA, seed=0)).embed_images(IMAGES), plain) is equal


def test_captions_that_go_with_other_pictures_teach_otherwise() -> None:
    """Dealt out anew, the captions are learnt less well: the likelihood of a picture's own caption says so."""
    target = tiny_clip()
    method = Arf(retrieved=0.0, steps=40, batch=6, rate=1e-3)
    turned = [replace(row, caption=NAMED[(k + 1) % 6].caption) for k, row in enumerate(NAMED)]
    own = [str(row.caption) for row in NAMED]
    found: list[float] = []
    for rows in (NAMED, turned):
        view = target.with_mend(method.fit(target, Dataset("rows", tuple(rows)), seed=0))
        found.append(float(view.logits(IMAGES, own).log_softmax(1).diagonal().mean()))
    assert found[0] > found[1] + 0.1


def test_the_built_in_pool_shows_nothing_that_the_model_is_not_to_know() -> None:
    rows = Arf().builtin().examples
    pool = [row for row in rows if not row.answers]
    assert len(rows) - len(pool) == 534
    assert {"object", "person", "word", "scene"} == {row.group for row in pool}
    assert not {row.attributes["category"] for row in pool} & set(UNSEEN_CATEGORIES)
    assert all(row.caption for row in rows)


def test_missing_captions_or_pool_and_parameters_out_of_range_are_refused() -> None:
    bare = Dataset("bare", (*(replace(row, caption=None) for row in NAMED), *POOL))
    with pytest.raises(BadData, match="captions=0"):
        Arf(**SETTINGS).fit(tiny_clip(), bare, seed=0)
    with pytest.raises(BadData, match="retrieved=0"):
        Arf(**SETTINGS).fit(tiny_clip(), Dataset("no pool", NAMED), seed=0)
    wrongs: tuple[dict[str, Any], ...] = ({"captions": -1.0}, {"retrieved": -1.0}, {"batch": 0})
    for wrong in wrongs:
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Arf(**wrong)
