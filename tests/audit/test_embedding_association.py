"""fairness/embedding_association on planted worlds: it finds the lean that is there, and nothing where none is."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from statistics import fmean, stdev

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual, titled_world

from vlmend.audit.suites.fairness.embedding_association import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData


@cache
def found(bias: float, seed: int, concepts: int = 6) -> dict[tuple[str, str], Measure]:
    target, data = titled_world(bias, seed, concepts)
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


def test_a_planted_lean_is_found_in_its_order() -> None:
    rows = [found(bias, 0) for bias in (0.0, 3.0, 12.0)]
    gaps = [row["cosine_gap", "directed"] for row in rows]
    assert gaps[0].low < 0 < gaps[0].high
    assert 0 < gaps[1].low <= gaps[1].high < gaps[2].low
    effects = [row["weat_d", "directed"] for row in rows]
    assert effects[0].low < 0 < effects[0].high
    assert effects[2].value > effects[1].value > effects[0].value
    assert effects[2].value < 2
    assert rows[0]["weat_p", "directed"].value > 0.05 > rows[2]["weat_p", "directed"].value
    assert [row.n for row in gaps] == [12] * 3


def test_captions_that_do_not_lean_show_nothing_beside_texts_that_do() -> None:
    rows = found(12.0, 0)
    assert rows["cosine_gap", "neutral"].low < 0 < rows["cosine_gap", "neutral"].high
    spread = rows["cosine_spread", "directed"]
    assert spread.low > spread.floor


def test_without_a_lean_the_spread_lies_at_its_floor() -> None:
    """Where pictures are noise, groups are dealt at random: means over eight worlds within 3.5 standard errors."""
    off: list[float] = []
    for seed in range(8):
        target, data = titled_world(0.0, seed, 3)
        blind = replace(target, images={name: _without_gender(vector, 3) for name, vector in target.images.items()})
        samples = SUITE.samples(blind, data, None, seed=0)
        off += [
            s.values["cosine_spread"] - s.values["cosine_spread_floor"] for s in samples if "cosine_spread" in s.values
        ]
    assert abs(fmean(off)) < 3.5 * stdev(off) / math.sqrt(len(off))


def _without_gender(vector: torch.Tensor, concepts: int) -> torch.Tensor:
    return torch.cat([vector[:concepts], torch.zeros(1), vector[concepts + 1 :]])


def marked_world(mark: float) -> tuple[ScriptedDual, Dataset]:
    """Three captions of 20 noisy pictures; the last axis is +mark for men and -mark for women."""
    generator = torch.Generator().manual_seed(1)
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for k in range(60):
        image, group = noise_image(4, k), ("man", "woman")[k % 2]
        vector = torch.cat([torch.randn(12, generator=generator), torch.tensor([mark if group == "man" else -mark])])
        images[image.digest] = vector
        rows.append(Example(str(k), group=group, image=image, caption=f"concept {k // 20}"))
    texts = {f"concept {c}": torch.randn(13, generator=generator) for c in range(3)}
    return ScriptedDual(images, texts), Dataset("marked", tuple(rows))


def test_pictures_that_carry_their_group_give_it_away_and_others_do_not() -> None:
    rows = {
        mark: {row.name: row for row in SUITE.measures(SUITE.samples(*marked_world(mark), None, seed=0), seed=0)}
        for mark in (0.0, 6.0)
    }
    assert rows[6.0]["group_probe"].value == 1
    assert rows[0.0]["group_probe"].low < rows[0.0]["group_probe"].floor < rows[0.0]["group_probe"].high
    assert rows[6.0]["group_distance"].low > 1.5
    assert abs(rows[0.0]["group_distance"].value - rows[0.0]["group_distance"].floor) < 0.05


def test_a_ratio_of_distances_by_hand() -> None:
    """Men at 0 and 60 degrees, women at 180 and 240: distances 1 within, and 2, sqrt(3), sqrt(3), 2 between."""
    angles = {"man": (0, 60), "woman": (180, 240)}
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for caption in ("a", "b"):
        for group, both in angles.items():
            for degrees in both:
                image = noise_image(4, len(rows))
                turn = math.radians(degrees)
                images[image.digest] = torch.tensor([math.cos(turn), math.sin(turn)])
                rows.append(Example(f"{len(rows)}", group=group, image=image, caption=caption))
    target = ScriptedDual(images, {name: torch.tensor([1.0, 0.0]) for name in ("a", "b")})
    samples = SUITE.samples(target, Dataset("d", tuple(rows)), None, seed=0)
    ratios = [s.values["group_distance"] for s in samples if s.group == "captions"]
    assert ratios == pytest.approx([(2 + math.sqrt(3)) / 2] * 2, abs=1e-5)


def test_of_three_groups_a_text_is_held_against_the_mean_of_the_others() -> None:
    """Cosines 1, 0.6 and 0 with a, b and c: towards a 1 - 0.3, and the spread is 1; there is no effect size."""
    at = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]}
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for k, group in enumerate("abc" * 4):
        image = noise_image(4, k)
        images[image.digest] = torch.tensor(at[group])
        rows.append(Example(f"{k}", group=group, image=image, caption=f"c{k // 6}"))
    target = ScriptedDual(images, {name: torch.tensor([1.0, 0.0]) for name in ("c0", "c1", "t")})
    samples = SUITE.samples(target, Dataset("d", (*rows, Example("t", "t", group="a"))), None, seed=0)
    (directed,) = [s for s in samples if s.group == "directed"]
    assert directed.values["cosine_gap"] == pytest.approx(0.7, abs=1e-6)
    assert directed.values["cosine_spread"] == pytest.approx(1.0, abs=1e-6)
    assert not {row.name for row in SUITE.measures(samples, 0)} & {"weat_d", "weat_p"}
    assert not any("cosine_gap" in s.values for s in samples if s.group == "neutral")


def test_pictures_of_unknown_group_or_unreadable_ones_are_no_group_and_are_counted() -> None:
    target, data = marked_world(6.0)
    unknown = Example("u", image=noise_image(4, 99), caption="concept 0")
    broken = Example("b", group="man", image=Image(b"none", "b"), caption="concept 0")
    samples = SUITE.samples(target, replace(data, examples=(*data.examples, unknown, broken)), None, seed=0)
    row = next(row for row in SUITE.measures(samples, 0) if row.name == "group_probe")
    assert (row.n, row.unscored) == (60, 2)
    assert [s.reason for s in samples if s.id == "u"] == ["its group is not known"]


def test_what_cannot_be_compared_by_group_is_refused() -> None:
    target, data = titled_world(1.0, 0, 2)
    men = replace(data, examples=tuple(row for row in data.examples if row.group == "man"))
    assert SUITE.applies(data)
    assert not SUITE.applies(men)
    with pytest.raises(BadData, match="20 of man; 2 captions have pictures of all"):
        SUITE.samples(target, men, None, seed=0)
    one = replace(data, examples=tuple(row for row in data.examples if row.caption == "concept 0"))
    with pytest.raises(BadData, match="1 captions have pictures of all"):
        SUITE.samples(target, one, None, seed=0)
    astray = replace(data, examples=(*data.examples, Example("x", "x", group="child")))
    with pytest.raises(BadData, match="texts towards child"):
        SUITE.samples(target, astray, None, seed=0)
