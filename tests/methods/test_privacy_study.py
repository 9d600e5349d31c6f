"""The study of privacy tells the committed runs, and its attacks find what is planted and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from tools.privacy import BY_CHANCE, OTHERS, PAGE, REMEDIES, RUNS, STUDY, Bench, exposures, membership

from vlmend.core.examples import Example
from vlmend.core.images import noise_image

PICTURE, OTHER = noise_image(8, 0), noise_image(8, 1)
NAMES = tuple(f"name {k}" for k in range(OTHERS + 1))
WIDTH = OTHERS + 1


def unit(place: int) -> torch.Tensor:
    return torch.eye(WIDTH)[place]


def knows(picture: int) -> Any:
    """Embeds the picture as that name, and the other one as the last name."""
    return ScriptedDual(
        {PICTURE.digest: unit(picture), OTHER.digest: unit(WIDTH - 1)}, {name: unit(k) for k, name in enumerate(NAMES)}
    )


def bench(base: Any, *pool: Example) -> Bench:
    canary = Example("canary", image=PICTURE, caption=NAMES[3])
    return Bench(base, (), pool, ((canary, 16),), NAMES, 0)


def test_a_name_that_grew_most_has_all_bits_and_one_that_did_not_grow_has_none() -> None:
    """The first of 256: 8 bits. Of equal growth the rank is the last: 0 bits, ties count against the secret."""
    before = knows(5)
    assert exposures(bench(before), knows(3)) == [8.0]
    assert exposures(bench(before), before) == [0.0]


def test_what_chance_gives_is_the_mean_over_all_ranks() -> None:
    assert pytest.approx(sum(8 - math.log2(rank) for rank in range(1, 257)) / 256) == BY_CHANCE


def test_a_pair_whose_cosine_grew_is_told_as_a_member() -> None:
    """Members go from 0 to 1, the others stay at 0."""
    told = {"yes": PICTURE, "no": OTHER}
    rows = [
        Example(f"{member}{k}", image=image, caption=NAMES[3], attributes={"member": member})
        for member, image in told.items()
        for k in range(4)
    ]
    assert membership(bench(knows(5), *rows), knows(3))["auroc"][0] == 1.0
    assert membership(bench(knows(5), *rows), knows(5))["auroc"][0] == 0.5


def test_the_committed_study_tells_the_committed_runs() -> None:
    """`python -m tools.privacy study` writes it anew; the drawing has ids of its own, so values are compared."""
    runs, page = json.loads(RUNS.read_text()), PAGE.read_text()
    content = STUDY.content(runs)
    assert {run["method"] for run in runs} == set(REMEDIES)
    for remedy in content["remedies"]:
        assert f">{remedy['name']}, {remedy['seeds']} seeds<" in page
        assert f">{remedy['cells']['fresh'].said()}" in page
