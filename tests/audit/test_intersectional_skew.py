"""fairness/intersectional_skew: a crossing that is put last while no single attribute shows it, and incomplete sets."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness.intersectional_skew import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.pictures.counterfactuals import people_in_sets

JOBS, SETS = 16, 4

CELLS = list(product(("man", "woman"), ("dark", "light")))

BOTH = "gender & tone"


def world(bias: float, seed: int = 0) -> tuple[ScriptedDual, Dataset]:
    """Texts lean to dark women and light men: of each gender and of each tone one half, so neither shows it alone."""
    generator = torch.Generator().manual_seed(seed)
    images: dict[str, torch.Tensor] = {}
    texts: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for job in range(JOBS):
        for k in range(SETS):
            for place, (gender, tone) in enumerate(CELLS):
                image = noise_image(4, 1000 * job + 10 * k + place)
                lean = 1.0 if (gender == "woman") == (tone == "dark") else -1.0
                images[image.digest] = torch.cat([torch.tensor([lean]), torch.randn(8, generator=generator)])
                told = {"set": f"{job}.{k}", "occupation": f"job {job}", "gender": gender, "tone": tone}
                row = Example(f"{job}.{k}.{place}", image=image, caption=f"text {job}", attributes=told)
                rows.append(row)
        texts[f"text {job}"] = torch.cat([torch.tensor([bias]), torch.randn(8, generator=generator)])
    return ScriptedDual(images, texts), Dataset("sets", tuple(rows))


def measured(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


@cache
def found(bias: float) -> dict[tuple[str, str], Measure]:
    return measured(*world(bias))


def test_a_crossing_is_found_that_no_attribute_shows_alone() -> None:
    rows = found(100.0)
    crossed = rows["max_skew_at_4", BOTH]
    assert crossed.low > crossed.floor
    for name in ("gender", "tone"):
        alone = rows["max_skew_at_4", name]
        assert alone.low < alone.floor
    assert crossed.n == JOBS


def test_the_skew_by_hand() -> None:
    """The eight pictures that are leant to come first: of the first four two are of one crossing, or more."""
    assert found(100.0)["max_skew_at_4", BOTH].value >= math.log(2 / 4 / (1 / 4))
    assert found(100.0)["min_skew_at_4", BOTH].value == pytest.approx(math.log(0.5 / 4 / (1 / 4)))


def test_nothing_is_found_where_nothing_is_planted() -> None:
    for name in (BOTH, "gender", "tone"):
        row = found(0.0)["max_skew_at_4", name]
        assert row.low < row.floor


def test_every_crossing_occurs_once_in_each_set_that_is_built_in() -> None:
    data = people_in_sets("held_out")
    of: dict[str, list[tuple[str, str]]] = {}
    for row in data.examples:
        of.setdefault(row.attributes["set"], []).append((row.attributes["gender"], row.attributes["tone"]))
    assert len(of) == 40
    assert all(len(cells) == len(set(cells)) == 10 for cells in of.values())


def test_a_group_that_is_missing_throughout_is_an_error() -> None:
    target, data = world(0.0)
    rows = tuple(row for row in data.examples if (row.attributes["gender"], row.attributes["tone"]) != CELLS[0])
    with pytest.raises(BadData, match=r"64 incomplete sets .* 0 man & dark instead of one of each of 4"):
        SUITE.samples(target, Dataset("without", rows), None, seed=0)


def test_an_incomplete_set_is_a_row_without_score() -> None:
    """One picture is missing, one cannot be read, one has no known tone, one comes twice: four sets are out."""
    target, data = world(0.0)
    rows = list(data.examples[1:])
    by_name = {row.id: place for place, row in enumerate(rows)}
    place = by_name["1.0.0"]
    rows[place] = replace(rows[place], image=Image(b"none", "broken"))
    place = by_name["2.0.0"]
    rows[place] = replace(rows[place], attributes={**rows[place].attributes, "tone": "unknown"})
    rows.append(replace(rows[by_name["3.0.0"]], id="again"))
    samples = SUITE.samples(target, Dataset("broken", tuple(rows)), None, seed=0)
    out = {sample.cluster: sample.reason for sample in samples if sample.group == "incomplete sets"}
    assert list(out) == ["0.0", "1.0", "2.0", "3.0"]
    assert "0 man & dark" in out["0.0"]
    assert "2 man & dark" in out["3.0"]
    row = {(m.name, m.group): m for m in SUITE.measures(samples, 0)}["ndkl", "incomplete sets"]
    assert (row.n, row.unscored) == (0, 4)


def test_an_occupation_with_one_set_says_nothing() -> None:
    target, data = world(0.0)
    rows = tuple(r for r in data.examples if r.attributes["occupation"] != "job 0" or r.attributes["set"] == "0.0")
    samples = SUITE.samples(target, Dataset("one", rows), None, seed=0)
    assert {sample.reason for sample in samples if sample.cluster == "job 0"} == {
        "job 0 has one complete set, and all of it would be looked at"
    }


def test_inferred_groups_are_refused() -> None:
    target, data = world(0.0)
    rows = tuple(replace(row, attributes={**row.attributes, "groups_by": "model"}) for row in data.examples)
    with pytest.raises(BadData, match="a model inferred"):
        SUITE.samples(target, Dataset("guessed", rows), None, seed=0)


def test_further_texts_are_told_apart() -> None:
    target, data = world(100.0)
    text = Example("own", "text 1", attributes={"occupation": "job 0"})
    rows = measured(target, Dataset("more", (*data.examples, text)))
    assert rows["max_skew_at_4", f"{BOTH} (further texts)"].n == 1
    assert rows["max_skew_at_4", BOTH].n == JOBS
