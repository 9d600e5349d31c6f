"""Novelty by words and by embeddings, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from vlmend.redteam.novelty import Archive, distinct_2


def letters(texts: Sequence[str]) -> np.ndarray:
    """How often each letter stands in a text, at length 1."""
    counts = np.array([[text.lower().count(chr(97 + k)) for k in range(26)] for text in texts], float)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_the_first_text_is_new_and_a_repeated_one_is_not() -> None:
    archive = Archive(letters)
    assert (archive.by_words("how is dax made"), archive.by_embedding(["how is dax made"])) == (1.0, [1.0])
    archive.add("how is dax made")
    assert archive.by_words("how is dax made") == 0.0
    assert archive.by_embedding(["how is dax made"]) == [pytest.approx(0.0, abs=1e-12)]


def test_words_are_bleu_with_the_archive_as_references() -> None:
    archive = Archive(letters)
    archive.add("how is dax made here")
    # "how is dax made there": 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples stand in the archive.
    expected = 1 - (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert archive.by_words("how is dax made there") == pytest.approx(expected)


def test_a_text_shorter_than_all_references_pays_for_it() -> None:
    archive = Archive(letters)
    archive.add("how is dax made")
    # Both words and the pair are known; BLEU is exp(1 - 4 / 2).
    assert archive.by_words("how is") == pytest.approx(1 - math.exp(1 - 4 / 2))


def test_several_references_count_together() -> None:
    archive = Archive(letters)
    archive.add("a b")
    archive.add("b c")
    # Words: 3 of 3. Pairs: 2 of 2. The triple is new, so the text is.
    assert archive.by_words("a b c") == 1.0
    assert archive.by_words("a c") == 1.0


def test_embeddings_count_by_the_nearest() -> None:
    archive = Archive(letters)
    archive.add("a")
    archive.add("b")
    assert archive.by_embedding(["c", "ab", "a"]) == [1.0, pytest.approx(1 - math.sqrt(0.5)), 0.0]


def test_distinct_2_is_the_share_of_different_pairs() -> None:
    assert distinct_2(["a b c", "a b d"]) == 3 / 4
    assert math.isnan(distinct_2(["a", ""]))
