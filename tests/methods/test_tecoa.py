"""TeCoA: the loss by hand, names kept better under attack and texts bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.tecoa import LEFT_OUT, Tecoa
from vlmend.methods.tuning import naming_loss
from vlmend.models.dual.encoder import DualEncoder
from vlmend.testing import tiny_clip
from vlmend.training.adversary import Adversary, worst_pixels

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
TEXTS = [f"a photo of a {name}" for name in NAMES]
RIGHT = torch.arange(6) % 3
QUICK = Tecoa(epsilon=0.1, steps=15, batch=4, rate=3e-3)


def worst_loss(target: DualEncoder, epsilon: float) -> float:
    """What the adversary can make of the loss."""
    pixels = target.pixels(IMAGES)
    loss = naming_loss(target, pixels, target.embed_texts(TEXTS), RIGHT)
    return float(loss(worst_pixels(loss, pixels.values, Adversary(epsilon, 10, epsilon / 4), 0)))


def test_names_that_cannot_be_told_apart_cost_the_logarithm_of_their_number() -> None:
    target = tiny_clip()
    pixels = target.pixels(IMAGES)
    alike = target.embed_texts(["the same"]).repeat(3, 1)
    assert float(naming_loss(target, pixels, alike, RIGHT)(pixels.values)) == pytest.approx(math.log(3), abs=1e-5)


def test_the_loss_is_that_of_the_targets_own_logits() -> None:
    target = tiny_clip()
    pixels, logits = target.pixels(IMAGES), target.logits(IMAGES, TEXTS)
    found = float(naming_loss(target, pixels, target.embed_texts(TEXTS), RIGHT)(pixels.values))
    assert found == pytest.approx(float(-logits.log_softmax(1)[range(6), RIGHT].mean()), abs=1e-5)


def test_under_attack_the_right_names_are_likelier_afterwards_and_texts_stay_bit_for_bit() -> None:
    target = tiny_clip()
    mended = target.with_mend(QUICK.fit(target, DATA, seed=0))
    assert worst_loss(mended, 0.1) < worst_loss(target, 0.1) - 0.1
    assert torch.equal(mended.embed_texts(TEXTS), target.embed_texts(TEXTS))


def test_the_same_seed_gives_the_same_mend_and_another_seed_another() -> None:
    quick = replace(QUICK, steps=2)
    first, again, other = (quick.fit(tiny_clip(), DATA, seed=seed).digest for seed in (0, 0, 1))
    assert first == again != other


def test_its_own_pictures_leave_a_category_to_be_tried_afterwards() -> None:
    groups = {row.group for row in Tecoa().builtin().examples}
    assert LEFT_OUT not in groups
    assert groups > {"animal", "thing"}


def test_one_name_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        Tecoa().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    for wrong in ({"epsilon": 0.0}, {"epsilon": 2.0}, {"steps": 0}, {"inner": 0}, {"rate": 0.0}, {"batch": 0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Tecoa(**wrong)
