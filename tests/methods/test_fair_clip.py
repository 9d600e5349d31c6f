"""FairCLIP: distances of scores worked out by hand, and what the term does to a batch."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter, MissingExtra
from vlmend.methods.fairness.fair_clip import FairClip, sinkhorn
from vlmend.methods.robustness.flyp import Flyp
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(8)]
DATA = Dataset(
    "named",
    tuple(
        Example(str(k), image=image, answers=(NAMES[k % 3],), group=("a", "b", "")[k % 4 // 2 if k < 6 else 2])
        for k, image in enumerate(IMAGES)
    ),
)
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 4, "rate": 1e-3}


def numbers(seed: int, count: int = 12) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def test_the_same_numbers_are_no_distance_apart_and_a_shift_is_half_its_square() -> None:
    distance, one = sinkhorn(1e-3), numbers(0)
    assert float(distance(one, one[torch.randperm(12, generator=torch.Generator().manual_seed(1))])) < 1e-6
    assert float(distance(one, one + 0.3)) == pytest.approx(0.045, rel=1e-2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_with_little_blur_it_is_half_the_mean_squared_difference_of_sorted_numbers(seed: int) -> None:
    """To within a quarter, below: geomloss goes down to the blur in steps of a tenth."""
    one, other = numbers(seed), numbers(seed + 1) + 0.2
    wanted = float((one.sort().values - other.sort().values).square().mean() / 2)
    assert 0.75 * wanted < float(sinkhorn(1e-3)(one, other)) < 1.02 * wanted


def test_both_sides_get_a_gradient_and_unequal_sizes_are_compared() -> None:
    one, other = numbers(0).requires_grad_(), (numbers(1, 5) + 1).requires_grad_()
    first, second = torch.autograd.grad(sinkhorn(1e-2)(one, other), [one, other])
    assert first.sum() < 0 < second.sum()


def test_without_weight_it_is_plain_fine_tuning_on_the_same_batches() -> None:
    """FLYP draws batches under a name of its own; under that of the kin it is FairCLIP without weight, to the bit."""

    class Kin(Flyp):
        draws = FairClip.draws

    target = tiny_clip()
    plain = target.with_mend(Kin(**SETTINGS).learn(target, DATA, seed=0))
    views = [
        target.with_mend(FairClip(weight=weight, crowd=3, **SETTINGS).fit(target, DATA, seed=0))
        for weight in (0.0, 50.0)
    ]
    assert torch.equal(views[0].embed_images(IMAGES), plain.embed_images(IMAGES))
    assert not torch.equal(views[1].embed_images(IMAGES), plain.embed_images(IMAGES))


def test_the_distances_of_the_groups_fall() -> None:
    """Of tiny random towers, fitted and looked at on the same pictures: it is the objective that is looked at."""
    target, data = tiny_clip(), replace(DATA, examples=DATA.examples[:6])

    def apart(weight: float) -> float:
        method = FairClip(weight=weight, crowd=6, steps=12, batch=6, rate=2e-3)
        view = target.with_mend(method.fit(target, data, seed=0))
        texts = [f"a photo of a {row.answers[0]}" for row in data.examples]
        scores = (view.embed_images([row.image for row in data.examples if row.image]) * view.embed_texts(texts)).sum(1)
        groups = [scores[[k for k, row in enumerate(data.examples) if row.group == one]] for one in ("a", "b")]
        return sum(float(sinkhorn(1e-3)(scores, one)) for one in groups)

    assert apart(1000.0) < 0.5 * apart(0.0)


def test_one_group_bad_settings_and_a_missing_library_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = replace(DATA, examples=tuple(replace(row, group="a") for row in DATA.examples))
    with pytest.raises(BadData, match=r"1 groups \(8 of a\)"):
        FairClip().fit(tiny_clip(), alone, seed=0)
    bad: list[dict[str, Any]] = [{"weight": -1.0}, {"blur": 0.0}, {"crowd": 1}]
    for wrong in bad:
        with pytest.raises(BadParameter, match="cannot be"):
            FairClip(**wrong)
    monkeypatch.setitem(sys.modules, "geomloss", None)
    with pytest.raises(MissingExtra, match="geomloss"):
        sinkhorn(0.1)
