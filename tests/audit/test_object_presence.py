"""utility/object_presence: yes where it is there, no where it is not."""

from __future__ import annotations

from vlmend.audit.suites.utility.object_presence import SUITE
from vlmend.core.conversation import Reply


def test_who_always_says_yes_is_right_half_the_time() -> None:
    """Things are there in every second picture, so of 6 questions 3 are right, and the yes-rate is 1."""
    questions = SUITE.questions(None, 6)
    assert [q.category for q in questions] == ["present", "absent"] * 3
    rows = {row.name: row for row in SUITE.measures([_answered(q, "Yes, there is.") for q in questions], seed=0)}
    assert (rows["accuracy"].value, rows["yes_rate"].value, rows["accuracy"].n) == (0.5, 1.0, 6)


def test_the_first_yes_or_no_counts_and_neither_is_wrong() -> None:
    present = SUITE.questions(None, 1)[0]
    said = {text: SUITE.verdict(present, text).label for text in ("No. Well, yes.", "yes", "Perhaps.")}
    assert said == {"No. Well, yes.": "wrong", "yes": "right", "Perhaps.": "wrong"}


def _answered(question: object, text: str) -> object:
    return SUITE.answer(question, Reply(text, "stop", 1, 1, 0.0))  # type: ignore[arg-type]
