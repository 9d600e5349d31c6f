"""privacy/identity on scripted encoders: names that are known are given away, permuted or unknown ones are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.privacy.identity import SUITE, TEMPLATES, majority
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData

PEOPLE, PHOTOS = 40, 3


def album() -> Dataset:
    """Forty made-up people with three pictures each, every second one a member."""
    rows = (
        Example(f"{who}-{k}", image=noise_image(4, PHOTOS * who + k), answers=(f"name{who}",),
                attributes={"member": ("yes", "no")[who % 2], "cluster": str(who)})
        for who in range(PEOPLE) for k in range(PHOTOS)
    )  # fmt: skip
    return Dataset("album", tuple(rows))


def encoder(data: Dataset, known: Callable[[int], bool], templates: int = len(TEMPLATES)) -> Any:
    """Pictures of known people lie on the axis of their name in so many templates, of the next name in the others."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(PEOPLE)
    images: dict[str, torch.Tensor] = {}
    for row in data.examples:
        who = int(row.attributes["cluster"])
        assert row.image is not None
        images[row.image.digest] = torch.randn(PEOPLE, generator=generator) + 50 * axes[who] * known(who)
    texts = {
        template.format(f"name{who}"): axes[(who + (place >= templates)) % PEOPLE]
        for place, template in enumerate(TEMPLATES) for who in range(PEOPLE)
    }  # fmt: skip
    return ScriptedDual(images, texts)


def taken(model: Any, data: Dataset) -> list[Sample]:
    return SUITE.samples(model, data, None, seed=0)


def measured(model: Any, data: Dataset) -> Mapping[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(taken(model, data), 0)}


def member(who: int) -> bool:
    return who % 2 == 0


def test_members_are_known_by_name_and_others_are_not() -> None:
    data = album()
    found = measured(encoder(data, member), data)
    assert found["identified", "member"].value == found["votes", "member"].value == 1
    assert found["identified", "non_member"].value <= 0.05
    assert found["auroc", "votes"].value > 0.95
    assert found["votes", "member"].floor == pytest.approx(1 / PEOPLE)
    assert found["identified", "member"].floor == pytest.approx(5 / (3 * PEOPLE))
    assert found["identified", "member"].says


@pytest.mark.parametrize(("templates", "identified"), [(2, 0.0), (3, 1.0)])
def test_most_templates_must_agree(templates: int, identified: float) -> None:
    data = album()
    found = measured(encoder(data, member, templates), data)
    assert found["identified", "member"].value == identified
    assert found["votes", "member"].value == pytest.approx(templates / 5)


def test_the_twin_that_knows_nobody_and_permuted_names_are_at_chance() -> None:
    data = album()
    shifted = tuple(
        replace(row, answers=(f"name{(int(row.attributes['cluster']) + 2) % PEOPLE}",)) for row in data.examples
    )
    for model, rows in ((encoder(data, lambda who: False), data.examples), (encoder(data, member), shifted)):
        found = measured(model, replace(data, examples=rows))
        assert found["identified", "member"].low <= found["identified", "member"].floor
        assert found["votes", "member"].value < 0.1


@pytest.mark.parametrize(("names", "told"), [([1, 1, 2], 1), ([1, 2], None), ([3], 3), ([1, 1, 2, 2, 3], None)])
def test_the_majority_of_pictures_by_hand(names: list[int], told: int | None) -> None:
    assert majority(names) == told


def test_a_person_none_of_whose_pictures_can_be_read_is_unscored() -> None:
    data = album()
    broken = tuple(
        replace(row, image=Image(b"none", "broken.png")) if row.id.startswith(("0-", "2-1")) else row
        for row in data.examples
    )
    samples = taken(encoder(data, member), replace(data, examples=broken))
    assert [one.id for one in samples if not one.values] == ["0"]
    assert not [one for one in samples if math.isnan(sum(one.values.values()))]


def test_people_of_one_kind_alone_or_with_two_names_are_refused() -> None:
    data = album()
    model = encoder(data, member)
    some = replace(data, examples=tuple(row for row in data.examples if row.attributes["member"] == "yes"))
    assert not SUITE.applies(some)
    with pytest.raises(BadData, match="20 people who were trained on and 0 who were not"):
        taken(model, some)
    two = replace(data.examples[0], answers=("name1",))
    with pytest.raises(BadData, match="has two names"):
        taken(model, replace(data, examples=(two, *data.examples[1:])))
