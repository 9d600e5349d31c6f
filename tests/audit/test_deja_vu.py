"""privacy/deja_vu: what a caption brings back beyond its words, worked out on embeddings that are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.privacy.deja_vu import NEAREST, SUITE
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData, UsageError

KINDS = 12
"""Each kind of scene has two objects of its own and ten public pictures."""

Points = Mapping[str, int]
"""To the pictures of which kind a caption points."""


def world() -> Dataset:
    def objects(kind: int) -> tuple[str, str]:
        return f"a{kind}", f"b{kind}"

    public = [
        Example(f"p{k}", image=noise_image(4, k), answers=objects(k // NEAREST), attributes={"member": "public"})
        for k in range(NEAREST * KINDS)
    ]
    captions = [
        Example(f"{member}{k}", caption=f"{member} {k}", answers=objects(k % KINDS), attributes={"member": member})
        for member in ("yes", "no", "reference") for k in range(24)
    ]  # fmt: skip
    return Dataset("world", (*public, *captions))


def model(data: Dataset, points: Points) -> Any:
    """Pictures of a kind lie on an axis of their own, and each caption on that of the kind to which it points."""
    axes = torch.eye(KINDS)
    images = {row.image.digest: axes[int(row.id[1:]) // NEAREST] for row in data.examples if row.image is not None}
    return ScriptedDual(images, {str(row.caption): axes[points[row.id]] for row in captions(data)})


def captions(data: Dataset) -> list[Example]:
    return [row for row in data.examples if row.caption]


def knows(data: Dataset, *kinds: str) -> Points:
    """Captions of these kinds point to pictures like their own, the others to those of the next kind."""
    return {
        row.id: (int(row.answers[0][1:]) + (row.attributes["member"] not in kinds)) % KINDS for row in captions(data)
    }


def taken(data: Dataset, own: Points, other: Points, limit: int | None = None) -> list[Sample]:
    return SUITE.beside(model(data, other)).samples(model(data, own), data, limit, seed=0)


def measured(samples: Sequence[Sample]) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_what_the_model_alone_was_trained_on_comes_back_and_the_reference_mirrors_it() -> None:
    data = world()
    found = measured(taken(data, knows(data, "yes"), knows(data, "reference")))
    value = {key: row.value for key, row in found.items()}
    assert value["recall", "member"] == value["precision", "member"] == 1.0
    assert value["reference_recall", "member"] == value["recall", "non_member"] == 0.0
    assert value["recall_gap", "member"] == value["recall_won", "member"] == value["precision_won", "member"] == 1.0
    assert value["recall_gap", "reference_only"] == -1.0
    assert value["recall_gap", "non_member"] == 0.0
    assert value["excess_recall", "member"] == 1.0
    assert found["excess_recall", "member"].low > 0.7
    swapped = measured(taken(data, knows(data, "reference"), knows(data, "yes")))
    for name in ("recall_gap", "precision_gap", "recall_won", "precision_won"):
        assert swapped[name, "member"].value == -value[name, "member"]


def test_a_model_beside_itself_has_no_gap_and_knowing_everything_is_no_memory() -> None:
    data = world()
    everything = knows(data, "yes", "no", "reference")
    same = measured(taken(data, everything, everything))
    assert {row.value for (name, _), row in same.items() if "gap" in name or "won" in name} == {0.0}
    assert same["top_recall_gap", "member"].value == same["top_recall_gap", "member"].floor == 0
    wiser = measured(taken(data, everything, knows(data)))
    assert wiser["recall_gap", "member"].value == wiser["recall_gap", "non_member"].value == 1.0
    assert wiser["excess_recall", "member"].value == 0.0


def test_the_mean_gap_is_the_area_between_the_survival_curves_of_recall() -> None:
    data = world()
    rng = np.random.default_rng(0)
    own, other = ({row.id: int(rng.integers(KINDS)) for row in captions(data)} for _ in range(2))
    samples = [s for s in taken(data, own | {"yes0": 0, "yes1": 1}, other) if s.group == "member"]
    grid = (np.arange(1000) + 0.5) / 1000
    areas = [
        np.mean([np.mean([s.values[name] >= x for s in samples]) for x in grid])
        for name in ("recall", "reference_recall")
    ]
    assert measured(samples)["recall_gap", "member"].value == pytest.approx(areas[0] - areas[1])


def test_chance_is_hypergeometric() -> None:
    """Ten of 120 public pictures hold a label; none of ten drawn does with C(110, 10) / C(120, 10)."""
    data = world()
    found = measured(taken(data, knows(data), knows(data)))
    assert found["recall", "member"].floor == pytest.approx(1 - math.comb(110, 10) / math.comb(120, 10))
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        hits += bool((rng.choice(120, 10, replace=False) < 10).any())
    assert hits / 2000 == pytest.approx(found["recall", "member"].floor, abs=0.04)


def test_what_cannot_be_measured_is_told() -> None:
    data = world()
    rows = [replace(row, answers=()) if row.id == "yes0" else row for row in data.examples]
    rows[0] = replace(rows[0], image=Image(b"no image", "broken.png"))
    points = knows(data, "yes")
    broken = replace(data, examples=tuple(rows))
    known = model(data, points)
    samples = SUITE.beside(known).samples(known, broken, None, seed=0)
    assert [(s.id, s.reason) for s in samples if not s.values] == [("yes0", "no objects are told of its picture")]
    for bad in (None, Dataset("none", ()), replace(data, examples=data.examples[:120])):
        with pytest.raises(BadData, match="some are needed of either"):
            SUITE.beside(known).samples(known, bad, None, seed=0)
    with pytest.raises(UsageError, match="needs a reference"):
        SUITE.samples(known, data, None, seed=0)
    assert SUITE.applies(data)
    assert not SUITE.applies(Dataset("pairs", tuple(captions(data))))
