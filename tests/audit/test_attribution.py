"""fairness/attribution on an encoder of which it is known where it looks: at the person, or past them (planted)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from tests.audit.linear_dual import halved, linear_dual, speckled

from vlmend.audit.suites.fairness.attribution import SUITE
from vlmend.core.examples import ACCEPTED, GROUPS_BY, INFERRED, Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.models.dual.encoder import DualEncoder
from vlmend.phantom.clip.queries import titles_against_each_other, titles_in_place
from vlmend.pictures.regions import people_in_place

PEOPLE = Dataset("people", tuple(speckled(f"{k}", ("man", "woman")[k % 2]) for k in range(4)))


def found(target: DualEncoder, data: Dataset) -> dict[tuple[str, str], Measure]:
    samples = SUITE.samples(target, data, None, seed=0)
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_a_model_that_looks_past_the_person_is_told_from_one_that_looks_at_them() -> None:
    clean, planted = (found(linear_dual(half), PEOPLE) for half in ("left", "right"))
    for group in ("man", "woman"):
        assert clean["share", group].value == pytest.approx(1)
        assert planted["share", group].value == pytest.approx(0, abs=1e-6)
        assert clean["share", group].floor == 0.5
        assert clean["over_centre", group].value == pytest.approx(0.5)
        assert clean["over_shuffled", group].value == pytest.approx(0.5, abs=0.1)
        assert planted["over_shuffled", group].value == pytest.approx(-0.5, abs=0.1)
        assert clean["complete", group].value == 1
        assert abs(clean["correlation", group].value) < 0.8
    assert (
        clean["share", "man"].says.format(value="9 %").endswith("9 % of what speaks for its texts on the person (man)")
    )


def test_groups_that_are_found_by_other_things_lie_apart() -> None:
    """Men are bright on the left, where the model looks; of women the right half says more than the left."""
    men = [halved(f"m{k}", 250, 50, "man") for k in range(10)]
    women = [replace(halved(f"w{k}", 250, 50, "woman"), attributes={"box": "16 0 32 32"}) for k in range(10)]
    table = found(linear_dual(), Dataset("people", (*men, *women)))
    gap = table["share_gap", "man and woman"]
    assert gap.value == pytest.approx(1)
    assert gap.floor < 0.5
    alike = found(
        linear_dual(), Dataset("people", (*men, *(replace(one, id=f"x{one.id}", group="woman") for one in men)))
    )
    assert alike["share_gap", "man and woman"].value == 0


def test_hiding_cells_in_the_order_of_the_map_is_drawn_beside_a_random_order() -> None:
    samples = SUITE.samples(linear_dual(), Dataset("one", (halved("a"),)), None, seed=0)
    curves = {(curve.title, curve.name): curve for curve in SUITE.curves(samples)}
    for title, ends in (("score while it is hidden", (1, 0)), ("score while it is put back", (0, 1))):
        for name in ("as the maps rank", "at random"):
            line = curves[title, name].points
            assert (line[0].value, line[-1].value) == pytest.approx(ends, abs=1e-6)
            assert [point.x for point in line] == sorted(point.x for point in line)
    assert curves["score while it is hidden", "as the maps rank"].points[4].value == pytest.approx(0, abs=1e-6)
    assert SUITE.curves([]) == []


def test_what_cannot_be_scored_is_told() -> None:
    row = halved("good")
    flat = replace(halved("flat", 100, 100), id="flat")
    unmasked = replace(row, id="unmasked", attributes={}, more_images=(row.image,) if row.image else ())
    broken = replace(row, id="broken", image=Image(b"no picture"))
    outside = replace(row, id="outside", attributes={"box": "90 0 99 9"})
    data = Dataset("odd", (row, flat, unmasked, broken, outside))
    reasons = {sample.id: sample.reason for sample in SUITE.samples(linear_dual(), data, None, seed=0)}
    assert reasons["good"] == ""
    assert reasons["flat"] == "Nothing in the picture speaks for the text."
    assert "no mask" in reasons["unmasked"]
    assert reasons["broken"]
    assert "box" in reasons["outside"]


def test_pictures_without_places_are_refused_and_inferred_groups_are_marked() -> None:
    bare = Dataset("bare", (Example("a", image=halved("a").image, caption="a"),))
    assert not SUITE.applies(bare)
    with pytest.raises(BadData, match="none says where the person is"):
        SUITE.samples(linear_dual(), bare, None, seed=0)
    for value in (INFERRED, ACCEPTED):
        rows = tuple(replace(row, attributes={**row.attributes, GROUPS_BY: value}) for row in PEOPLE.examples)
        data = Dataset("people", rows)
        if value == INFERRED:
            with pytest.raises(BadData, match="inferred"):
                SUITE.samples(linear_dual(), data, None, seed=0)
        else:
            samples = SUITE.samples(linear_dual(), data, 1, seed=0)
            assert {sample.group for sample in samples} == {"man (inferred)", "woman (inferred)"}


def test_built_in_people_stand_where_their_masks_say() -> None:
    """The ground is one colour, and no pixel outside of the mask has another."""
    rows = people_in_place("held_out").examples
    assert len(rows) == 200
    for row in rows[:6]:
        assert row.image is not None
        picture, mask = (np.asarray(one.decode()) for one in (row.image, row.more_images[0]))
        outside = picture[(mask == 0).all(-1)]
        assert len(np.unique(outside, axis=0)) == 1
        assert 0.2 < (mask > 0).mean() < 0.8


def test_titles_in_place_and_against_each_other() -> None:
    places, parts = titles_in_place().examples, titles_against_each_other().examples
    assert {row.group for row in places} == {"man", "woman"}
    assert len({row.caption for row in places}) == 40
    assert all(row.caption != row.attributes["against"] for row in parts)
    assert all(isinstance(row.more_images[0].decode(), PIL.Image.Image) for row in parts[:3])
