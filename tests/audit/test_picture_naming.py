"""utility/picture_naming: the last word of a picture's name, in the reply."""

from __future__ import annotations

import pytest

from vlmend.audit.suite import Question
from vlmend.audit.suites.utility.picture_naming import SUITE
from vlmend.core.conversation import Reply

HAT = Question("q", "What is in this picture?", "original", "naming", "clothes", None, ("top hat",))


@pytest.mark.parametrize(
    ("reply", "label"),
    [("A hat.", "right"), ("Two HATS", "right"), ("That is what I see", "wrong"), ("A top", "wrong"), ("", "wrong")],
)
def test_the_last_word_of_the_name_is_looked_for_as_a_word(reply: str, label: str) -> None:
    assert SUITE.verdict(HAT, reply).label == label


def test_accuracy_is_the_share_of_right_names() -> None:
    """One of four replies names the hat."""
    replies = ("a hat", "a cat", "a bat", "a mat")
    (row,) = SUITE.measures(
        [SUITE.answer(HAT, Reply(text, "stop", 1, 1, 0.0), f"q#{text}") for text in replies], seed=0
    )
    assert (row.value, row.n, row.better) == (0.25, 4, "higher")
