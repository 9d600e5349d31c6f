"""Counterparts of drawn people: the view stays to the pixel, the person does not, and nothing else is ever touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.pictures.counterparts import Change, counterpart, with_counterparts
from vlmend.pictures.galleries import object_pictures, people_gallery
from vlmend.pictures.glyphs import people

PEOPLE = people_gallery("train").examples


def pixels(row: Example | None) -> np.ndarray:
    assert row is not None
    assert row.image is not None
    return np.asarray(row.image.decode(), int)


@pytest.mark.parametrize("change", ["gender", "skin"])
def test_the_corners_stay_to_the_pixel_and_the_person_changes(change: Change) -> None:
    for row in PEOPLE[:400:57]:
        other = counterpart(row, change)
        moved = np.abs(pixels(other) - pixels(row)).max(-1) > 0
        assert 0.02 < moved.mean() < 0.6
        assert not moved[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_the_other_gender_is_the_glyph_of_that_gender_in_the_same_profession_and_tone() -> None:
    of = {glyph.id: glyph for glyph in people()}
    by_cell = {(row.caption, row.id.partition("#")[2], of[row.id.partition("#")[0]].tone, row.group) for row in PEOPLE}
    for row in PEOPLE[::41]:
        other = counterpart(row, "gender")
        assert other is not None
        assert {row.group, other.group} == {"man", "woman"}
        assert (other.caption, other.attributes["of"]) == (row.caption, row.id)
        tone, k = of[row.id.partition("#")[0]].tone, row.id.partition("#")[2]
        assert (other.caption, k, tone, other.group) in by_cell


def test_twice_is_once_and_only_our_own_people_are_changed() -> None:
    first = PEOPLE[0]
    other = counterpart(first, "gender")
    assert other is not None
    assert counterpart(other, "skin") is None
    assert counterpart(replace(first, image=noise_image(72, 0)), "gender") is None
    assert counterpart(replace(first, id="x"), "gender") is None
    assert counterpart(object_pictures("train").examples[0], "gender") is None
    doubled = with_counterparts(Dataset("few", (*PEOPLE[:3], Example("t", "a text"))))
    assert len(doubled.examples) == 7
    assert with_counterparts(doubled).examples == doubled.examples
