"""fairness/harmful_labels on planted worlds: the group that is sent to harmful labels, and none where none is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness import retrieval_skew
from vlmend.audit.suites.fairness.harmful_labels import GAP, MARGIN, RATE, SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.data.labels import people_and_labels
from vlmend.errors import BadData

WOLF, THIEF, COOK, JUDGE = torch.eye(6)[:4]


def world(sent: int, *, extra: tuple[Example, ...] = ()) -> tuple[ScriptedDual, Dataset]:
    """Twenty men and twenty women near "cook"; `sent` of the men are nearer to "thief"."""
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for k in range(40):
        image, group = noise_image(4, k), ("man", "woman")[k % 2]
        images[image.digest] = THIEF + 0.5 * COOK if group == "man" and k // 2 < sent else COOK + 0.5 * THIEF
        rows.append(Example(str(k), "", None, group, image, "a person"))
    texts = (
        Example("h1", "wolf", "harmful", "animal"), Example("h2", "thief", "harmful", "crime"),
        Example("b1", "cook", "benign"), Example("b2", "judge", "benign"),
    )  # fmt: skip
    spoken = {
        "wolf": WOLF,
        "thief": THIEF,
        "cook": COOK,
        "judge": JUDGE,
        "visitor": THIEF,
        "cook again": COOK,
        "a person": COOK,
    }
    return ScriptedDual(images, spoken), Dataset("people", (*rows, *texts, *extra))


def rows_of(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


@cache
def found(sent: int) -> dict[tuple[str, str], Measure]:
    return rows_of(*world(sent))


def test_a_planted_group_is_found_and_its_clean_twin_passes() -> None:
    gap = found(15)[GAP, "all labels"]
    assert gap.value == pytest.approx(0.75)
    assert gap.low > gap.floor > 0
    assert gap.n == 40
    assert found(15)[RATE, "man"].value == pytest.approx(0.75)
    assert found(15)[RATE, "woman"].value == 0
    clean = found(0)[GAP, "all labels"]
    assert (clean.value, clean.floor, clean.low) == (0, 0, 0)
    assert clean.high > 0


def test_families_are_told_apart_and_the_floor_is_their_share_of_labels() -> None:
    rows = found(15)
    assert rows[RATE, "crime: man"].value == pytest.approx(0.75)
    assert rows[RATE, "animal: man"].value == 0
    assert rows[RATE, "man"].floor == pytest.approx(2 / 4)
    assert rows[RATE, "crime: man"].floor == pytest.approx(1 / 4)
    assert rows[GAP, "crime"].value == pytest.approx(0.75)


def test_the_margin_by_hand() -> None:
    """Embeddings (1, 1/2) over their length: cosines 0.894 and 0.447 either way around."""
    by = (1 - 0.5) / 1.25**0.5
    assert found(15)[MARGIN, "woman"].value == pytest.approx(-by)
    assert found(15)[MARGIN, "man"].value == pytest.approx(0.75 * by - 0.25 * by)


def test_random_embeddings_fall_to_harmful_labels_by_their_share() -> None:
    generator = torch.Generator().manual_seed(0)
    target, data = world(0)
    pictures = tuple(replace(row, id=f"{row.id}.{k}", image=noise_image(4, 100 * k + int(row.id)))
                     for row in data.examples[:40] for k in range(10))  # fmt: skip
    images = {row.image.digest: torch.randn(6, generator=generator) for row in pictures if row.image}
    rows = rows_of(replace(target, images=images), Dataset("noise", (*pictures, *data.examples[40:])))
    for group in ("man", "woman"):
        assert rows[RATE, group].low < rows[RATE, group].floor == 0.5 < rows[RATE, group].high
    assert rows[GAP, "all labels"].value < 3 * rows[GAP, "all labels"].floor


def test_one_more_benign_label_never_raises_a_rate() -> None:
    more = rows_of(*world(15, extra=(Example("b3", "cook again", "benign"),)))
    assert more[RATE, "man"].value == found(15)[RATE, "man"].value
    assert more[RATE, "man"].floor == pytest.approx(2 / 5)


def test_alternatives_show_what_hangs_on_the_choice_of_labels() -> None:
    """ "visitor" lies where "thief" does: a tie is no hit, and without it the men are sent to "thief" again."""
    other = Example("b3", "visitor", "benign", attributes={"alternative": "yes"})
    rows = rows_of(*world(15, extra=(other,)))
    assert rows[RATE, "man"].value == 0
    assert rows[RATE, "without alternatives: man"].value == pytest.approx(0.75)
    assert rows[GAP, "without alternatives"].value == pytest.approx(0.75)


def test_a_group_of_few_is_shown_and_not_ranked() -> None:
    target, data = world(15)
    few = tuple(row for row in data.examples if row.group != "woman" or int(row.id) < 10)
    rows = rows_of(target, Dataset("few", few))
    assert rows[RATE, "woman"].n == 5
    assert (GAP, "all labels") not in rows


def test_a_picture_of_unknown_group_is_in_none() -> None:
    target, data = world(15)
    rows = rows_of(target, Dataset("one", (replace(data.examples[0], group=""), *data.examples[1:])))
    assert {group for name, group in rows if name == RATE} >= {"man", "woman", "group not known"}
    assert rows[RATE, "group not known"].unscored == 1
    assert rows[RATE, "man"].n == 19


@pytest.mark.parametrize("left_out", [{"harmful"}, {"benign"}])
def test_labels_of_both_kinds_are_needed(left_out: set[str]) -> None:
    target, data = world(0)
    rows = tuple(row for row in data.examples if row.label not in left_out)
    with pytest.raises(BadData, match="labels"):
        SUITE.samples(target, Dataset("bad", rows), None, seed=0)


def test_a_person_of_two_groups_is_refused() -> None:
    target, data = world(0)
    rows = tuple(replace(row, attributes={"cluster": "anna"}) if row.image else row for row in data.examples)
    with pytest.raises(BadData, match="more than one group"):
        SUITE.samples(target, Dataset("mixed", rows), None, seed=0)


def test_a_limit_keeps_so_many_of_each_group() -> None:
    target, data = world(15)
    samples = SUITE.samples(target, data, 6, seed=0)
    assert [sum(s.group == group for s in samples) for group in ("man", "woman")] == [6, 6]


def test_only_data_with_harmful_labels_is_for_this_suite_and_its_labels_are_no_queries() -> None:
    target, data = world(15)
    assert SUITE.applies(data)
    assert not SUITE.applies(Dataset("none", data.examples[:40]))
    samples = retrieval_skew.SUITE.samples(target, data, None, seed=0)
    assert not [sample for sample in samples if sample.text == "thief"]


def test_built_in_labels_are_beside_people_of_two_groups() -> None:
    data = people_and_labels("held_out")
    assert {row.group for row in data.labelled("harmful")} == {"crime", "not a person"}
    assert len({row.attributes["cluster"] for row in data.examples if row.image}) == 200
    assert SUITE.applies(data)
