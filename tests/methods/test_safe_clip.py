"""Safe-CLIP: its two losses by hand, what learns, and that unsafe content moves to its counterpart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.weight_edits import LoadAdapter
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety.safe_clip import Four, SafeClip, keep_loss, quadruplets, redirect_loss
from vlmend.models.dual.encoder import DualEncoder
from vlmend.pictures.marked import MARK, marked_scenes
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat", "dog")
DATA = Dataset(
    "four",
    tuple(
        row
        for k, name in enumerate(NAMES)
        for row in (
            Example(name, "", "benign", "", noise_image(16, k), f"a {name}"),
            Example(f"{name}!", "", "harmful", "", noise_image(16, 9 + k), f"a {name}, pink", attributes={"of": name}),
        )
    ),
)
WORDS = [f"a {name}" for name in NAMES]
QUICK = SafeClip(steps=30, batch=4, rate=2e-2, rank=4)


def drawn(seed: int) -> torch.Tensor:
    return normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_at_the_start_nothing_is_apart_and_redirect_is_keep_where_unsafe_is_safe() -> None:
    now = Four(drawn(0), drawn(1), drawn(0), drawn(1))
    both = [loss(now, now, 0.0, WORDS) for loss in (keep_loss, redirect_loss)]
    assert float(both[0]) == pytest.approx(0.5 * math.log(4))  # no cosine counts: only InfoNCE of 4, twice a quarter
    assert float(both[1]) == pytest.approx(0.75 * math.log(4))


def test_terms_by_hand() -> None:
    """Two rows along the axes: safe ones (1, 0), (0, 1) as they were; now each is at the other's place."""
    one, other = torch.eye(2), torch.eye(2).flip(0)
    was, now = Four(one, one, one, one), Four(other, other, other, other)
    wrong = math.log(1 + math.exp(2.0))  # InfoNCE of two where the wrong one is ahead by scale 2
    assert float(keep_loss(now, was, 2.0, ["a", "b"])) == pytest.approx(0.1 + 0.1 + 0.5 * wrong)
    assert float(redirect_loss(now, was, 2.0, ["a", "b"])) == pytest.approx(0.1 + 0.2 + 0.75 * wrong)


def four(view: DualEncoder) -> Four:
    rows = [DATA.examples[::2], DATA.examples[1::2]]
    texts = [view.embed_texts([str(one.caption) for one in part]) for part in rows]
    images = [view.embed_images([one.image for one in part if one.image is not None]) for part in rows]
    return Four(texts[0], images[0], texts[1], images[1])


def losses(base: DualEncoder, view: DualEncoder) -> tuple[float, float]:
    """Keep and redirect on the rows of the fit."""
    scale = float(base.towers.scale)
    return tuple(float(loss(four(view), four(base), scale, WORDS)) for loss in (keep_loss, redirect_loss))  # type: ignore[return-value]


def test_unsafe_content_moves_to_where_its_counterpart_was_and_adapters_alone_learn() -> None:
    target = tiny_clip()
    mend, plain = (one.fit(target, DATA, seed=0) for one in (QUICK, replace(QUICK, redirect=0.0)))
    assert all(isinstance(edit, LoadAdapter) for edit in mend.edits)
    (_, before), (_, after), (kept, without) = (
        losses(target, view) for view in (target, target.with_mend(mend), target.with_mend(plain))
    )
    assert after < before
    assert after < without
    assert kept < losses(target, target)[0]


def test_marked_scenes_come_in_pairs_that_differ_in_one_thing() -> None:
    data = marked_scenes("held_out", 5)
    for safe, unsafe in quadruplets(data):
        assert MARK not in str(safe.caption)
        assert str(unsafe.caption).count(MARK) == 1
        assert len(str(unsafe.caption).split()) > len(str(safe.caption).split())
    assert len(quadruplets(data)) == 5


def test_rows_without_a_counterpart_and_weights_below_nothing_are_refused() -> None:
    with pytest.raises(BadData, match="0 unsafe rows"):
        SafeClip().fit(tiny_clip(), Dataset("safe", DATA.examples[::2]), seed=0)
    with pytest.raises(BadParameter, match="redirect=-1"):
        SafeClip(redirect=-1.0)
