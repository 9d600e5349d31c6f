"""privacy/poisoned_samples: what lies together and apart is told, as long as it has fewer than k neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.privacy.poisoned_samples import SUITE, suspicion
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData


def poisoned(count: int, bad: int) -> Dataset:
    """Pairs, of which the first are poisoned; each has a caption of its own."""
    rows = (
        Example(
            f"r{k}", image=noise_image(8, k), caption=f"word {k}", attributes={"poisoned": "yes" if k < bad else "no"}
        )
        for k in range(count)
    )
    return Dataset("marked", tuple(rows))


def clustered(data: Dataset, planted: bool) -> Any:
    """Clean pictures around one direction; planted ones close together in another, away from their texts."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(len(data.examples), 16, generator=generator) + 4 * torch.eye(16)[0]
    texts = points.clone()
    spot = 4 * torch.eye(16)[1]
    if planted:
        bad = torch.tensor([row.attributes["poisoned"] == "yes" for row in data.examples])
        points[bad] = spot + 0.02 * torch.randn(int(bad.sum()), 16, generator=generator)
    images = {
        row.image.digest: point for row, point in zip(data.examples, points, strict=True) if row.image is not None
    }
    return ScriptedDual(images, {str(row.caption): text for row, text in zip(data.examples, texts, strict=True)})


def scored(samples: Sequence[Sample]) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_few_poisons_are_far_from_their_16th_neighbour_and_many_are_not_but_from_their_128th() -> None:
    few, many = poisoned(300, 8), poisoned(300, 40)
    found = scored(SUITE.samples(clustered(few, True), few, None, seed=0))
    assert found["auroc", "k_distance_16"].low > 0.5
    assert found["auroc", "mismatch"].value == 1
    assert found["tpr_at_1_fpr", "mismatch"].n == 300
    swarm = scored(SUITE.samples(clustered(many, True), many, None, seed=0))
    assert swarm["auroc", "k_distance_16"].value < 0.1, "close together they look like the most common of all"
    assert swarm["auroc", "k_distance_128"].value > swarm["auroc", "k_distance_16"].value


def test_where_nothing_is_planted_nothing_is_found() -> None:
    data = poisoned(300, 30)
    found = scored(SUITE.samples(clustered(data, False), data, None, seed=0))
    for (name, _), row in found.items():
        if name == "auroc":
            assert row.low < 0.5 < row.high or row.value == 0.5, row.group


def test_scores_of_more_neighbours_than_there_are_pairs_are_unscored() -> None:
    data = poisoned(40, 4)
    samples = SUITE.samples(clustered(data, True), data, None, seed=0)
    found = scored(samples)
    assert found["auroc", "slof_16"].n == 40
    assert (found["auroc", "slof_128"].n, found["auroc", "slof_128"].unscored) == (0, 40)
    assert suspicion(clustered(data, True), data.examples[:1]) == {}
    broken = replace(data.examples[0], image=Image(b"no image", "broken.png"))
    left = SUITE.samples(clustered(data, True), replace(data, examples=(broken, *data.examples[1:])), None, seed=0)
    assert [s.id for s in left if not s.values] == ["r0"]
    with pytest.raises(BadData, match="0 clean pairs"):
        SUITE.samples(clustered(data, True), replace(data, examples=data.examples[:4]), None, seed=0)
