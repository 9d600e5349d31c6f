"""Pictures with names: the first answer counts, names are sorted, one name is none."""

from __future__ import annotations

import pytest

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData
from vlmend.pictures.galleries import training_objects
from vlmend.pictures.named import named_pictures

IMAGE = noise_image(4, 0)


def test_rows_with_image_and_answer_are_taken_by_their_first_answer() -> None:
    rows = (
        Example("1", image=IMAGE, answers=("pan", "ant")),
        Example("2", image=IMAGE),
        Example("3", answers=("bee",)),
        Example("4", image=IMAGE, answers=("ant",)),
    )
    known = named_pictures(Dataset("some", rows))
    assert (known.names, known.right) == (("ant", "pan"), (1, 0))
    assert known.texts == ["a photo of a ant", "a photo of a pan"]


def test_a_single_name_is_refused() -> None:
    with pytest.raises(BadData, match="of 1 known things"):
        named_pictures(Dataset("some", (Example("1", image=IMAGE, answers=("ant",)),)))


def test_training_pictures_leave_out_what_they_are_told_to_and_share_no_view() -> None:
    data, shifted = training_objects(1, without=("food",)), training_objects(1, "ground")
    assert len(shifted.examples) == 534
    assert {row.group for row in shifted.examples} - {row.group for row in data.examples} == {"food"}
    pictures = [row.image.digest for row in (*data.examples, *shifted.examples) if row.image is not None]
    assert len(set(pictures)) == len(pictures)
