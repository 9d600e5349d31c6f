"""Which rows a target can read: asked about as few as can be, and named where they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.examples import Example, spread
from vlmend.core.images import Image, noise_image
from vlmend.core.readable import each_read, spread_readable
from vlmend.errors import SampleError
from vlmend.testing import ScriptedTarget

ROWS = [Example(str(k), "what", image=noise_image(2, k)) for k in range(10)]


@dataclass(frozen=True)
class Picky(ScriptedTarget):
    """Cannot read some rows, and notes which it was asked about."""

    refused: frozenset[str] = frozenset()
    tried: list[str] = field(default_factory=list[str])

    def check_request(self, example: Example) -> None:
        self.tried.append(example.id)
        if example.id in self.refused:
            raise SampleError("too long", "shorten it")


def picky(*refused: str) -> Any:
    return Picky(lambda conversation, mended: "", refused=frozenset(refused))


def test_only_rows_that_are_taken_are_put_to_the_target() -> None:
    target = picky()
    chosen, bad = spread_readable(target, ROWS, 3)
    assert [row.id for row in chosen] == ["0", "3", "6"] == target.tried
    assert not bad


def test_a_row_in_the_way_is_named_and_another_is_taken() -> None:
    target = picky("3")
    chosen, bad = spread_readable(target, ROWS, 3)
    assert bad == {"3": "too long"}
    assert [row.id for row in chosen] == ["0", "4", "7"]  # a third of nine each
    assert target.tried == ["0", "3", "6", "4", "7"]


@given(st.sets(st.sampled_from([row.id for row in ROWS])), st.integers(1, 12))
def test_what_is_taken_can_be_read_and_is_as_many_as_there_are(refused: set[str], limit: int) -> None:
    chosen, bad = spread_readable(picky(*refused), ROWS, limit)
    assert not {row.id for row in chosen} & refused
    assert len(chosen) == min(limit, len(ROWS) - len(refused))
    assert list(chosen) == list(spread([row for row in ROWS if row.id not in bad], limit))


def read(rows: Sequence[Example]) -> list[str]:
    if any(row.id == "3" for row in rows):
        raise ValueError("no threes")
    return [row.id * 2 for row in rows]


def test_rows_are_asked_about_one_by_one_only_where_all_together_fail() -> None:
    target = picky("3")
    assert each_read(target, ROWS[:3], read) == ({"0": "00", "1": "11", "2": "22"}, {})
    assert not target.tried
    assert each_read(target, ROWS[2:5], read) == ({"2": "22", "4": "44"}, {"3": "too long"})


def test_a_broken_picture_never_reaches_the_others() -> None:
    gone = Example("gone", "what", image=Image(b"x"))
    target = picky()
    found, bad = each_read(target, [gone, *ROWS[:2]], read)
    assert found == {"0": "00", "1": "11"}
    assert list(bad) == ["gone"]
    assert not target.tried
    assert each_read(target, [gone], read) == ({}, bad)


def test_a_failure_of_no_row_is_the_targets_and_raised() -> None:
    with pytest.raises(ValueError, match="no threes"):
        each_read(picky(), ROWS[2:5], read)
