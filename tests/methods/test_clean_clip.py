"""CleanCLIP: without its own part it is FLYP, the part within modalities is learnt, bad data are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.privacy.clean_clip import CleanClip
from vlmend.methods.robustness.flyp import Flyp
from vlmend.models.dual.encoder import DualEncoder
from vlmend.pictures.changes import variants
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 3, "rate": 1e-3}


def alike(view: DualEncoder) -> float:
    """How much more a picture is like its changed selves than like other pictures: mean cosine less mean cosine."""
    plain = view.embed_images(IMAGES)
    changed = torch.stack([
        view.embed_images([Image.from_pixels(variants(image.decode())[k]) for image in IMAGES]) for k in range(4)
    ]).mean(0)  # fmt: skip
    cosines = plain @ changed.T
    return float(cosines.diagonal().mean() - cosines[~torch.eye(len(IMAGES), dtype=torch.bool)].mean())


def test_without_its_own_part_it_is_flyp_to_the_bit_and_with_it_pictures_know_themselves() -> None:
    target = tiny_clip()
    plain = target.with_mend(Flyp(**SETTINGS).fit(target, DATA, seed=0))
    without = CleanClip(alone=0.0, **SETTINGS)
    assert torch.equal(
        target.with_mend(without.fit(target, DATA, seed=0)).embed_images(IMAGES), plain.embed_images(IMAGES)
    )
    longer = replace(without, steps=30, batch=6)
    off, on = (alike(target.with_mend(one.fit(target, DATA, seed=0))) for one in (longer, replace(longer, alone=2.0)))
    assert on > off


def test_the_same_seed_gives_the_same_mend() -> None:
    target, method = tiny_clip(), CleanClip(**SETTINGS)
    one, same, other = (
        target.with_mend(method.fit(target, DATA, seed=seed)).embed_images(IMAGES) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_one_name_and_a_weight_below_nothing_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        CleanClip().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    with pytest.raises(BadParameter, match="alone=-1"):
        CleanClip(alone=-1.0)
