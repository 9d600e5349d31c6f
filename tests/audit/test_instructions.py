"""utility/instructions: rules on the form of an answer that can be told from the reply alone."""

from __future__ import annotations

import pytest

from vlmend.audit.suites.utility.instructions import RULES, SUITE
from vlmend.core.conversation import Reply


@pytest.mark.parametrize(
    ("rule", "kept", "broken"),
    [
        ("capitals", "A RED HAT.", "A red hat."), ("begin", "Well, a hat.", "A hat, well."),
        ("short", "one two three four five", "one two three four five six"), ("list", "1. A hat", "- A hat"),
    ],
)  # fmt: skip
def test_each_rule_tells_a_reply_that_keeps_it(rule: str, kept: str, broken: str) -> None:
    assert RULES[rule][1](kept)
    assert not RULES[rule][1](broken)


def test_accuracy_is_the_share_of_kept_rules() -> None:
    """Rules come in turn: capitals, begin, short, list. "1 HAT" keeps capitals, short and list: 3 of 4."""
    questions = SUITE.questions(None, 4)
    assert [q.category for q in questions] == list(RULES)
    answers = [SUITE.answer(q, Reply("1 HAT", "stop", 1, 1, 0.0)) for q in questions]
    (row,) = SUITE.measures(answers, seed=0)
    assert (row.name, row.value, row.n) == ("accuracy", 0.75, 4)
