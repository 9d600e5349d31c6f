"""FLYP: it is the plain loop, its family sees the same batches, and the loss by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import BadData
from vlmend.methods.contrastive import Pairs
from vlmend.methods.robustness.carot import Carot
from vlmend.methods.robustness.flyp import Flyp
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 3, "rate": 1e-3}


def test_two_pairs_by_hand_and_a_text_that_is_true_of_both_is_no_negative() -> None:
    """Scale ln 3: the right one of two has 3/4, so ln 4/3; where both texts are true of both there is no other."""
    eye = torch.eye(2)
    pairs = Pairs(0, tiny_clip().pixels(IMAGES[:2]), (0, 1), ("a", "b"), eye, eye, math.log(3), eye.bool())
    assert float(pairs.contrast()) == pytest.approx(math.log(4 / 3), abs=1e-6)
    torch.testing.assert_close(pairs.logits, math.log(3) * eye)
    assert float(replace(pairs, true=torch.ones(2, 2, dtype=torch.bool)).contrast()) == 0


def test_both_towers_learn_and_pictures_come_nearer_to_their_names() -> None:
    target = tiny_clip()
    mend = Flyp(steps=20, batch=6, rate=1e-3).fit(target, DATA, seed=0)
    moved = {edit.parameter.partition(".")[0] for edit in mend.edits if isinstance(edit, ReplaceWeights)}
    assert {"vision_model", "text_model"} <= moved
    texts, right = [f"a photo of a {name}" for name in NAMES], torch.arange(6) % 3
    before, after = (
        one.logits(IMAGES, texts).log_softmax(1)[range(6), right].mean() for one in (target, target.with_mend(mend))
    )
    assert after > before + 0.1


def test_carot_without_its_terms_is_the_same_to_the_bit() -> None:
    plain = Flyp(**SETTINGS).fit(tiny_clip(), DATA, seed=3)
    carot = Carot(orthogonal=0.0, distil=0.0, **SETTINGS).fit(tiny_clip(), DATA, seed=3)
    views = [tiny_clip().with_mend(mend) for mend in (plain, carot)]
    assert torch.equal(*(view.embed_images(IMAGES) for view in views))
    assert torch.equal(*(view.embed_texts(NAMES) for view in views))


def test_one_name_is_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        Flyp().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
