"""Strict and lenient matching of short answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.audit.matching import holds, plain, same

WORDS = st.lists(st.sampled_from(["cat", "dog", "two", "A", "yes", "no"]), min_size=1, max_size=4).map(" ".join)


@pytest.mark.parametrize(
    ("text", "compared"),
    [("A Cat.", "cat"), ("the two dogs", "2 dogs"), ("It's red!", "its red"), ("the", ""), ("top-hat", "top hat")],
)
def test_case_articles_punctuation_and_numbers_do_not_count(text: str, compared: str) -> None:
    assert plain(text) == compared


@pytest.mark.parametrize(
    ("reply", "answer", "strict", "lenient"),
    [
        ("A cat.", "cat", True, True),
        ("There are two cats", "cat", False, True),
        ("I see two.", "2", False, True),
        ("concatenate", "cat", False, False),
        ("top hat on a red chair", "red chair", False, True),
        ("a chair that is red", "red chair", False, False),
        ("Yes, there is no doubt", "yes", False, True),
        ("Yes, there is no doubt", "no", False, False),
        ("", "cat", False, False),
        ("", "the", True, True),
    ],
)
def test_the_strict_and_the_lenient_match(reply: str, answer: str, strict: bool, lenient: bool) -> None:
    assert (same(reply, [answer]), holds(reply, [answer])) == (strict, lenient)


@given(WORDS, WORDS)
def test_what_matches_strictly_matches_leniently(reply: str, answer: str) -> None:
    assert holds(reply, [answer]) or not same(reply, [answer])
