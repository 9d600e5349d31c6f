"""fairness/disentanglement: factors an axis are found, turned ones are not, and decisions that follow a group are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness.disentanglement import MIG, SUITE, UNFAIR
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.core.metrics import disentangling
from vlmend.errors import BadData

JOBS = 4


@pytest.fixture(autouse=True, scope="module")
def few_trees() -> Iterator[None]:
    """Forests small enough for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disentangling, "TREES", 8)
        yield


def world(lean: float, turned: bool = False) -> tuple[ScriptedDual, Dataset]:
    """Axis 0 is gender, 1 tone (or both turned), then jobs; two texts of each job are apart in gender by `lean`."""
    generator = torch.Generator().manual_seed(0)
    images: dict[str, torch.Tensor] = {}
    texts: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for k in range(96):
        gender, tone, job = ("man", "woman")[k % 2], ("dark", "light")[k // 2 % 2], k // 4 % JOBS
        vector = 0.02 * torch.randn(2 + JOBS + 2, generator=generator)
        own = torch.tensor([1.0 if gender == "man" else -1.0, 1.0 if tone == "dark" else -1.0])
        vector[:2] += own if not turned else torch.stack([own[0] - own[1], own[0] + own[1]]) / 2**0.5
        vector[2 + job] += 2
        image = noise_image(4, k)
        images[image.digest] = vector
        told = {"gender": gender, "tone": tone, "occupation": f"job {job}", "cluster": f"person {k}"}
        rows.append(Example(str(k), image=image, attributes=told))
    for job in range(JOBS):
        for side in (1.0, -1.0):
            vector = torch.zeros(2 + JOBS + 2)
            vector[2 + job], vector[0] = 2, lean * side
            texts[f"{job} {side}"] = vector
            rows.append(Example(f"{job} {side}", f"{job} {side}"))
    return ScriptedDual(images, texts), Dataset("factors", tuple(rows))


def measured(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


@cache
def found(lean: float, turned: bool = False) -> dict[tuple[str, str], Measure]:
    return measured(*world(lean, turned))


def test_a_factor_of_an_axis_of_its_own_has_a_gap_and_a_turned_one_has_none() -> None:
    straight, turned = found(0.0), found(0.0, turned=True)
    for factor in ("gender", "tone"):
        assert straight[MIG, f"own axes: {factor}"].value > 0.7
        assert straight[MIG, f"own axes: {factor}"].low > straight[MIG, f"own axes: {factor}"].floor
        assert turned[MIG, f"own axes: {factor}"].value < 0.1
    assert straight["dci_disentanglement", "own axes"].value > turned["dci_disentanglement", "own axes"].value + 0.15
    assert straight["dci_accuracy", "own axes"].value > 0.75
    assert straight["dci_accuracy", "own axes"].floor < 0.6


def test_separate_axes_do_not_make_decisions_fair() -> None:
    """The codes are as separate in both; only the texts differ."""
    fair, biased = found(0.0), found(1.0)
    assert biased[MIG, "own axes: gender"].value == pytest.approx(fair[MIG, "own axes: gender"].value)
    assert biased[UNFAIR, "gender"].value == pytest.approx(0.5)
    assert biased[UNFAIR, "gender"].floor < 0.2
    assert biased[UNFAIR, "tone"].value == pytest.approx(0.0)
    assert fair[UNFAIR, "gender"].value == pytest.approx(0.0)


def test_unknown_factors_and_broken_pictures_are_rows_without_score() -> None:
    target, data = world(0.0)
    rows = list(data.examples)
    rows[0] = replace(rows[0], image=Image(b"none", "broken"))
    rows[1] = replace(rows[1], attributes={**rows[1].attributes, "tone": "unknown"})
    samples = SUITE.samples(target, Dataset("some", tuple(rows)), None, seed=0)
    assert {sample.id: sample.reason for sample in samples if sample.reason}["1"] == "its tone is not known"
    row = {(m.name, m.group): m for m in SUITE.measures(samples, 0)}[MIG, "own axes: tone"]
    assert (row.n, row.unscored) == (94, 2)


def test_without_texts_nothing_is_decided() -> None:
    target, data = world(0.0)
    table = measured(target, Dataset("pictures", tuple(row for row in data.examples if row.image)))
    assert not any(name == UNFAIR for name, _ in table)


def test_two_factors_are_needed_and_inferred_groups_are_refused() -> None:
    target, data = world(0.0)
    one = tuple(replace(row, attributes={"gender": row.attributes.get("gender", "")}) for row in data.examples)
    with pytest.raises(BadData, match="pictures of known factors: gender"):
        SUITE.samples(target, Dataset("one", one), None, seed=0)
    guessed = tuple(replace(row, attributes={**row.attributes, "groups_by": "model"}) for row in data.examples)
    with pytest.raises(BadData, match="a model inferred"):
        SUITE.samples(target, Dataset("guessed", guessed), None, seed=0)
