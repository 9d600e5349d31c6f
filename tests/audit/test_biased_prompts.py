"""fairness/biased_prompts: leans by hand, a planted dose in its order, decisions that hang on the group, bad input."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness.biased_prompts import (
    ATTRIBUTE,
    CHANGED,
    LARGEST,
    LEAN,
    SIGN,
    SUITE,
    leans,
    without,
)
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData

JOBS = 12

WIDTH = JOBS + 18


def world(dose: float) -> tuple[ScriptedDual, Dataset]:
    """Two titles of each job, the first of which leans to men by `dose`, the second to women; axis 0 is the gender."""
    generator = torch.Generator().manual_seed(0)

    def vector(job: int, gender: float) -> torch.Tensor:
        made = torch.zeros(WIDTH)
        made[0], made[1 + job] = gender, 3.0
        made[JOBS + 2 :] = 0.5 * torch.randn(16, generator=generator)
        return made

    texts: dict[str, torch.Tensor] = {}
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for gender, sign in (("man", 1.0), ("woman", -1.0)):
        for k in range(3):
            text = f"{gender} {k}"
            texts[text] = vector(JOBS, 3.0 * sign)
            rows.append(Example(text, text, group=gender, attributes={ATTRIBUTE: "gender"}))
        for job in range(JOBS):
            text = f"title {job} {gender}"
            texts[text] = vector(job, dose * sign)
            rows.append(Example(text, text, group=gender, caption=f"job {job}"))
            for k in range(4):
                image = noise_image(4, 100 * job + 10 * k + int(sign))
                images[image.digest] = vector(job, 1.0 * sign)
                rows.append(Example(f"{job}-{gender}-{k}", group=gender, image=image))
    return ScriptedDual(images, texts), Dataset("titles", tuple(rows))


def measured(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


@cache
def found(dose: float) -> dict[tuple[str, str], Measure]:
    return measured(*world(dose))


def test_leans_by_hand() -> None:
    """Places at right angles: the place itself is 1, the other -1, what lies between 0; of three the others' mean."""
    two = torch.eye(3)[:2]
    texts = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.5**0.5, 0.5**0.5, 0], [0.6, 0, 0.8]])
    assert leans(texts, two)[:, 0].tolist() == pytest.approx([1, -1, 0, 0.6])
    assert leans(texts, torch.eye(3)).tolist()[3] == pytest.approx([0.6 - 0.4, -0.7, 0.8 - 0.3])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_leans_stay_where_everything_is_turned(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator).double()).Q
    places, texts = (
        torch.nn.functional.normalize(torch.randn(n, 6, generator=generator).double(), dim=1) for n in (3, 4)
    )
    assert torch.allclose(leans(texts, places), leans(texts @ turn, places @ turn))
    rest = without(texts, places)
    assert torch.allclose(rest @ (places[1] - places[0]), torch.zeros(4).double(), atol=1e-9)
    assert torch.allclose(without(rest, places), rest)


def test_a_planted_dose_is_found_in_its_order() -> None:
    rows = [found(dose)[LEAN, "directed"] for dose in (0.0, 0.5, 2.0)]
    assert rows[0].low < 0 < rows[0].high
    assert rows[0].value < rows[1].value < rows[2].value
    assert found(2.0)[SIGN, "directed"].value == 1.0
    assert found(2.0)[LARGEST, "directed"].low > found(2.0)[LARGEST, "directed"].floor


def test_decisions_that_hang_on_the_group_change_without_it() -> None:
    """Two titles of a job differ in the gender alone, so without it pictures go to either."""
    assert found(2.0)[CHANGED, "decisions"].value > 0.2
    assert found(2.0)[CHANGED, "decisions"].low > found(0.0)[CHANGED, "decisions"].high


def test_without_texts_that_name_groups_their_words_do() -> None:
    target, data = world(2.0)
    rows = tuple(row for row in data.examples if not row.attributes.get(ATTRIBUTE))
    with pytest.raises(KeyError, match="a photo of a man"):
        SUITE.samples(target, Dataset("bare", rows), None, seed=0)


def test_captions_of_pictures_are_neutral_prompts() -> None:
    target, data = world(2.0)
    rows = tuple(replace(row, caption="title 1 man") if row.image else row for row in data.examples)
    table = measured(target, Dataset("captioned", rows))
    assert table[LARGEST, "neutral"].n == 1
    assert (LEAN, "neutral") not in table


def test_a_broken_picture_is_a_row_without_score() -> None:
    target, data = world(2.0)
    rows = list(data.examples)
    place = next(k for k, row in enumerate(rows) if row.image)
    rows[place] = replace(rows[place], image=Image(b"none", "broken"))
    row = measured(target, Dataset("broken", tuple(rows)))[CHANGED, "decisions"]
    assert (row.n, row.unscored) == (8 * JOBS - 1, 1)


def test_prompts_and_groups_are_needed() -> None:
    target, data = world(2.0)
    for rows in (data.examples[:3], tuple(row for row in data.examples if row.group == "man")):
        assert not SUITE.applies(Dataset("few", rows))
        with pytest.raises(BadData, match="prompts and names the groups"):
            SUITE.samples(target, Dataset("few", rows), None, seed=0)
