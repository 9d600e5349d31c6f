"""face_edit: every drawn person once more with another person, groups even, all other rows as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import object_pictures, people_gallery
from vlmend.steps.fairness.face_edit import FaceEdit

MEN = tuple(row for row in people_gallery("train").examples if row.group == "man")[:3]
OTHERS = (object_pictures("train").examples[0], Example("t", "a text"), Example("n", image=noise_image(72, 1)))


def test_men_alone_become_as_many_women_and_other_rows_stay() -> None:
    titled = tuple(replace(row, answers=("chief",)) for row in MEN)
    edit = FaceEdit().apply(Dataset("men", (*titled, *OTHERS)), seed=0)
    assert edit.data.examples[:6] == (*titled, *OTHERS)
    assert [(one.example.group, one.example.answers, one.example.attributes["of"]) for one in edit.added] == [
        ("woman", ("chief",), row.id) for row in MEN
    ]
    shares = {row["group"]: (row["before"], row["after"]) for row in edit.tables["groups"]}
    assert (shares["man"], shares["woman"]) == ((3, 3), (0, 3))


def test_another_skin_is_the_same_group_and_a_second_time_adds_nothing() -> None:
    once = FaceEdit(change="skin").apply(Dataset("men", MEN), seed=0)
    assert {one.example.group for one in once.added} == {"man"}
    assert {one.example.attributes["edited"] for one in once.added} == {"skin"}
    assert FaceEdit(change="skin").apply(once.data, seed=0).added == ()
    both = FaceEdit().apply(once.data, seed=0)
    assert len(both.data.examples) == 9  # of three men: themselves, another skin, the other gender


def test_data_without_drawn_people_and_an_unknown_change_are_refused() -> None:
    with pytest.raises(BadData, match="no picture of a drawn person"):
        FaceEdit().apply(Dataset("things", OTHERS), seed=0)
    with pytest.raises(BadParameter, match="change='age'"):
        FaceEdit(change="age")  # pyright: ignore[reportArgumentType]
