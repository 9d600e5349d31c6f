"""Face invariance: pairs come together while their names are still told, and rows without a pair are only named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.face_invariance import FaceInvariance
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(8)]
DATA = Dataset(
    "pairs",
    tuple(
        Example(str(k), image=image, answers=(NAMES[k % 3],), attributes={"of": str(k - 3)} if 3 <= k < 6 else {})
        for k, image in enumerate(IMAGES)
    ),
)
SETTINGS: dict[str, Any] = {"steps": 12, "batch": 6, "rate": 2e-3, "crowd": 3}


def apart(images: torch.Tensor) -> float:
    """Mean squared distance of the three pairs."""
    return float((images[:3] - images[3:6]).square().sum(1).mean())


def test_pairs_come_together_the_more_it_weighs() -> None:
    target = tiny_clip()
    views = [
        target.with_mend(FaceInvariance(cohere=cohere, **SETTINGS).fit(target, DATA, seed=0))
        for cohere in (0.0, 1.0, 50.0)
    ]
    distances = [apart(view.embed_images(IMAGES)) for view in views]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.3 * apart(target.embed_images(IMAGES))


def test_without_weight_pairs_do_not_matter() -> None:
    target, others = (
        tiny_clip(),
        replace(
            DATA,
            examples=tuple(replace(row, attributes={"of": "0"} if row.id == "7" else {}) for row in DATA.examples),
        ),
    )
    first, second = (FaceInvariance(cohere=0.0, **SETTINGS).fit(target, data, seed=0) for data in (DATA, others))
    views = [target.with_mend(one).embed_images(IMAGES) for one in (first, second)]
    assert torch.equal(*views)


def test_the_pairs_are_people_in_one_view_with_one_name_and_objects_have_none() -> None:
    data = FaceInvariance().sample_data()
    rows = {row.id: row for row in data.examples}
    edited = [row for row in data.examples if "of" in row.attributes]
    assert len(edited) == 8
    assert {(row.group, rows[row.attributes["of"]].group) for row in edited} == {("man", "woman"), ("woman", "man")}
    assert all(row.answers == rows[row.attributes["of"]].answers for row in edited)
    assert sum(not row.group for row in data.examples) == 2


def test_data_without_pairs_and_settings_that_cannot_be_are_refused() -> None:
    alone = replace(DATA, examples=tuple(replace(row, attributes={"of": "gone"}) for row in DATA.examples))
    with pytest.raises(BadData, match="no picture with another person"):
        FaceInvariance().fit(tiny_clip(), alone, seed=0)
    bad: list[dict[str, Any]] = [{"cohere": -1.0}, {"crowd": 0}]
    for wrong in bad:
        with pytest.raises(BadParameter, match="cannot be"):
            FaceInvariance(**wrong)
