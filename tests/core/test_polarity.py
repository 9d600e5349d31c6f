"""Coded male or female by a closed list of words: laws, and replies by hand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.polarity import PAIRS, coding_of, gender_of, polarity

SWAP = dict(PAIRS) | {female: male for male, female in PAIRS}
WORDS = st.lists(st.sampled_from([*SWAP, "a", "smith", "mankind", "the", "guys", "women's"]), max_size=8)


def swapped(text: str) -> str:
    return re.sub(r"[a-z]+", lambda word: SWAP.get(word[0], word[0]), text)


@given(WORDS)
def test_swapping_every_gendered_word_turns_the_sign(words: list[str]) -> None:
    text = " ".join(words)
    assert polarity(swapped(text)) == -polarity(text)
    assert -1 <= polarity(text) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He is a smith.", "male"),
        ("A woman holds her hammer", "female"),
        ("a smith at work", "neither"),
        ("he and she are bakers", "neither"),
        ("She told him that she sings.", "female"),
        ("mankind, guys and womanly things", "neither"),
        ("", "neither"),
    ],
)
def test_by_hand(text: str, expected: str) -> None:
    assert coding_of(text) == expected


def test_groups_are_genders_by_their_names() -> None:
    assert [gender_of(name) for name in ("man", "Female", "nonbinary", "", "wo man")] == [
        "male", "female", "neither", "neither", "male",
    ]  # fmt: skip
