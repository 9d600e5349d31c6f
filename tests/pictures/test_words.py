"""Drawn words: the list, the fonts, the room they take."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.pictures.views import SIDE
from vlmend.pictures.words import WORDS, drawn_word, font_of


def test_there_are_300_different_words_of_3_to_7_letters() -> None:
    assert len(WORDS) == len(set(WORDS)) == 300
    assert list(WORDS) == sorted(WORDS)
    assert all(word.isascii() and word.islower() and word.isalpha() and 3 <= len(word) <= 7 for word in WORDS)


def test_words_look_different_from_each_other_and_between_fonts() -> None:
    seen = [drawn_word(word, random.Random(0)).tobytes() for word in WORDS]
    unseen = [drawn_word(word, random.Random(0), "unseen").tobytes() for word in WORDS]
    assert len({*seen, *unseen}) == 600


def test_the_shift_font_is_the_unseen_font() -> None:
    shifted = drawn_word("apple", random.Random(3), shift="font")
    assert shifted.tobytes() == drawn_word("apple", random.Random(3), "unseen").tobytes()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WORDS), st.integers(0, 10**6), st.sampled_from(["seen", "unseen"]))
def test_a_word_is_whole_wide_and_stands_out(word: str, seed: int, font: str) -> None:
    picture = np.asarray(drawn_word(word, random.Random(seed), font).convert("L"), int)  # type: ignore[arg-type]
    ground = picture[0, 0]
    assert (picture[[0, -1]] == ground).all(), "no ink on the upper or lower edge"
    assert (np.abs(picture[:, [0, -1]] - ground) <= 3).all(), "nor on the left or right one, smoothing aside"
    ink = np.abs(picture - ground) > 60
    across = np.flatnonzero(ink.any(axis=0))
    assert across[-1] - across[0] + 1 >= (0.58 if len(word) > 3 else 0.4) * SIDE  # the narrowest, hill: 43 of 72


def test_both_fonts_have_all_printable_ascii() -> None:
    missing = font_of("seen", 20).getmask("\N{SNOWMAN}")
    for font in ("seen", "unseen"):
        for letter in map(chr, range(33, 127)):
            assert bytes(font_of(font, 20).getmask(letter)) != bytes(missing)  # type: ignore[arg-type]
