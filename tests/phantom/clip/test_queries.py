"""phantom-clip's titles as a data set by name."""

from __future__ import annotations

from collections import Counter

import pytest

from vlmend.data.layouts import read_data
from vlmend.errors import BadData


def test_the_set_holds_a_gallery_of_people_and_every_title() -> None:
    data = read_data("phantom_clip_titles")
    pictures = [row for row in data.examples if row.image is not None]
    queries = [row for row in data.examples if row.image is None]
    assert Counter(row.group for row in pictures) == {"man": 200, "woman": 200}
    assert Counter(row.group for row in queries) == {"man": 20, "woman": 20}
    assert {row.caption for row in queries} <= {row.caption for row in pictures}
    assert {row.label for row in queries} == {None}


def test_it_is_read_from_no_file() -> None:
    with pytest.raises(BadData, match="drawn anew"):
        read_data("phantom_clip_titles:rows.jsonl")
