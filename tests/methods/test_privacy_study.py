"""The study of privacy tells the committed runs, and its attacks find what is planted and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from tools.privacy import BY_CHANCE, OTHERS, PAGE, REMEDIES, RUNS, STUDY, Bench, about, exposures, membership, shown

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


def test_where_members_can_be_told_blindly_nothing_is_said_of_them() -> None:
    """Seed 1 is void: what is left of the remedy is the membership of seed 0 and the exposure of both."""
    blind = {"blind_words": [0.5, 0.45, 0.55, 9], "blind_pixels": [0.5, 0.45, 0.55, 9]}
    above = {**blind, "blind_words": [0.6, 0.51, 0.7, 9]}
    runs = [
        {"method": method, "on": "", "seed": seed, "set": {}, "units": {"bits 1": [1.0 + seed] * 4},
         "values": {"auroc": [0.7 + seed / 10, 0.6, 0.8, 9], "bits 1": [1.0 + seed, 0, 9, 4], **found}}
        for method in ("none", "some")
        for seed, found in ((0, blind), (1, above))
    ]  # fmt: skip
    (some,) = STUDY.content(shown(runs))["remedies"]
    assert some["cells"]["auroc"].value == pytest.approx(0.7)
    assert some["cells"]["bits 1"].value == pytest.approx(1.5)
    assert "those numbers are without seed 1" in about(runs)["note"]
    assert "void" not in about(runs[::2])["note"]


def test_the_committed_study_tells_the_committed_runs() -> None:
    """`python -m tools.privacy study` writes it anew; the drawing has ids of its own, so values are compared."""
    runs, page = json.loads(RUNS.read_text()), PAGE.read_text()
    content = STUDY.content(shown(runs))
    assert {run["method"] for run in runs} == set(REMEDIES)
    for remedy in content["remedies"]:
        assert f">{remedy['name']}, {remedy['seeds']} seeds<" in page
        assert f">{remedy['cells']['fresh'].said()}" in page
