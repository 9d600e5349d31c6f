"""fairness/counterfactual_matching: scores by hand, chance, neutral captions with a planted lean, pairs that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness.counterfactual_matching import (
    ASSOCIATION,
    DIRECTION,
    FLOORS,
    GROUP,
    IMAGE,
    LEAN,
    PAIRED,
    SUITE,
    TEXT,
    pair_values,
)  # fmt: skip
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.pictures.counterfactuals import counterfactual_pairs


def world(told: float, *, neutral: bool = False, pairs: int = 200, width: int = 12) -> tuple[ScriptedDual, Dataset]:
    """Pairs whose pictures differ along the first axis, and whose captions do so by `told`."""
    generator = torch.Generator().manual_seed(1)
    images: dict[str, torch.Tensor] = {}
    texts: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for k in range(pairs):
        for side in (1.0, -1.0):
            image, text = noise_image(4, 2 * k + int(side > 0)), f"caption {k} {side}"
            images[image.digest] = torch.cat([torch.tensor([side]), torch.randn(width, generator=generator)])
            texts[text] = torch.cat([torch.tensor([side * told]), torch.randn(width, generator=generator)])
            attributes = {"pair": str(k)} | ({"neutral": "yes"} if neutral else {})
            rows.append(Example(f"{k}{side}", group="gender", image=image, caption=text, attributes=attributes))
    return ScriptedDual(images, texts), Dataset("pairs", tuple(rows))


def measured(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


def test_captions_that_say_what_differs_are_matched() -> None:
    rows = measured(*world(30.0))
    assert rows[TEXT, "gender"].value == 1.0
    assert rows[GROUP, "gender"].low > 0.5 > rows[GROUP, "gender"].floor == pytest.approx(1 / 6)
    assert rows[DIRECTION, "gender"].low > 0.3


def test_unrelated_captions_are_matched_by_chance() -> None:
    rows = measured(*world(0.0))
    for name in (TEXT, IMAGE, GROUP, PAIRED, DIRECTION):
        assert rows[name, "gender"].low < rows[name, "gender"].floor < rows[name, "gender"].high


def test_chance_by_counting_four_numbers_that_are_alike() -> None:
    """Of the 24 orders of four numbers: text and image score hold in 6 each, both in 4."""
    draws = np.random.default_rng(0).random((40000, 2, 2))
    text = (draws[:, 0, 0] > draws[:, 0, 1]) & (draws[:, 1, 1] > draws[:, 1, 0])
    image = (draws[:, 0, 0] > draws[:, 1, 0]) & (draws[:, 1, 1] > draws[:, 0, 1])
    paired = draws[:, 0, 0] + draws[:, 1, 1] > draws[:, 0, 1] + draws[:, 1, 0]
    for name, hits in ((TEXT, text), (IMAGE, image), (GROUP, text & image), (PAIRED, paired)):
        assert hits.mean() == pytest.approx(FLOORS[name], abs=0.01)


def test_a_lean_of_neutral_captions_is_found_in_its_order() -> None:
    shares = [measured(*world(told, neutral=True))[ASSOCIATION, "neutral: gender"] for told in (0.0, 1.0, 5.0)]
    assert shares[0].low < 0.5 < shares[0].high
    assert shares[0].value < shares[1].value < shares[2].value
    assert shares[2].low > 0.8
    lean = measured(*world(0.0, neutral=True))[LEAN, "neutral: gender"]
    assert lean.low < 0 < lean.high
    assert (GROUP, "neutral: gender") not in measured(*world(0.0, neutral=True))


unit = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(torch.tensor)


@settings(max_examples=60, deadline=None)
@given(unit, unit, unit, unit)
def test_members_swapped_on_both_sides_leave_every_score(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor
) -> None:
    """The difference vectors change their sign, and their cosine does not."""
    one = pair_values(torch.stack([a, b]), torch.stack([c, d]), neutral=False)
    other = pair_values(torch.stack([b, a]), torch.stack([d, c]), neutral=False)
    assert one.keys() == other.keys()
    assert all(other[name] == pytest.approx(value, abs=1e-5) for name, value in one.items())


def test_by_hand() -> None:
    """Both pictures like the first caption best: the image score holds, the text score does not."""
    images, texts = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([[1.0, 0.3], [0.2, 0.5]])
    found = pair_values(images, texts, neutral=False)
    assert (found[TEXT], found[IMAGE], found[GROUP], found[PAIRED]) == (0.0, 1.0, 0.0, 1.0)
    assert found[DIRECTION] == pytest.approx((0.2 * 0.8 + 0.6 * 0.2) / (0.4**0.5 * 0.68**0.5))


def test_the_same_picture_twice_has_no_direction_and_is_not_scored() -> None:
    target, data = world(1.0, pairs=3)
    rows = list(data.examples)
    rows[1] = replace(rows[1], image=rows[0].image)
    samples = SUITE.samples(target, Dataset("same", tuple(rows)), None, seed=0)
    assert samples[0].reason == "to the encoder both pictures or both captions are the same"
    row = {(m.name, m.group): m for m in SUITE.measures(samples, 0)}[GROUP, "gender"]
    assert (row.n, row.unscored) == (2, 1)


def test_pairs_that_fail_are_rows_without_score() -> None:
    """One has one row, one a broken picture, one the same caption twice."""
    target, data = world(1.0, pairs=5)
    rows = list(data.examples)
    rows[2] = replace(rows[2], image=Image(b"none", "broken"))
    rows[5] = replace(rows[5], caption=rows[4].caption)
    samples = SUITE.samples(target, Dataset("bad", tuple(rows[1:])), None, seed=0)
    reasons = {sample.id: sample.reason for sample in samples if sample.reason}
    assert reasons["0"] == "its pair has 1 rows instead of 2"
    assert reasons["2"] == "both of its captions are the same"
    assert "1" in reasons
    assert len(reasons) == 3


def test_data_without_pairs_are_refused() -> None:
    target, data = world(1.0, pairs=2)
    rows = tuple(replace(row, attributes={"pair": row.id}) for row in data.examples)
    with pytest.raises(BadData, match="no pair of captioned pictures"):
        SUITE.samples(target, Dataset("alone", rows), None, seed=0)
    assert not SUITE.applies(Dataset("none", tuple(replace(row, attributes={}) for row in data.examples)))


def test_built_in_pairs_differ_in_what_they_say() -> None:
    data = counterfactual_pairs("held_out")
    of: dict[str, list[Example]] = {}
    for row in data.examples:
        of.setdefault(row.attributes["pair"], []).append(row)
    assert {group: sum(rows[0].group == group for rows in of.values()) for group in ("gender", "tone", "object")} == {
        "gender": 100, "tone": 40, "object": 100,
    }  # fmt: skip
    assert all(len(rows) == 2 for rows in of.values())
    light, dark = next(rows for rows in of.values() if rows[0].group == "tone")
    pixels = [np.asarray(row.image.decode(), int) for row in (light, dark) if row.image]
    changed = (np.abs(pixels[0] - pixels[1]).sum(-1) > 0).mean()
    assert 0.02 < changed < 0.6
    assert (light.caption or "").replace("light", "dark") == dark.caption
