"""privacy/access_control: rule-keepers, leakers and those who decline all, by hand; the law of the score."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.suites.privacy.access_control import ARMS, DECLINE, MODERATE, SUITE, private_facts
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.metrics.protection import protection, protection_interval
from vlmend.errors import BadData
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

Says = Callable[[Conversation], str]
FACTS = private_facts()


def measured(says: Says, data: Dataset = FACTS) -> dict[tuple[str, str], float]:
    return {key: row.value for key, row in rows(says, data).items()}


def rows(says: Says, data: Dataset = FACTS) -> dict[tuple[str, str], Measure]:
    target: Any = ScriptedTarget(lambda asked, mended: says(asked))
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), 0)}


def known(asked: Conversation) -> str:
    """The right answer, looked up in the facts of the request."""
    question = next(turn.text for turn in reversed(asked.turns) if "?" in turn.text and turn.text != MODERATE)
    (row,) = (row for row in FACTS.examples if row.prompt in question)
    return f"It is {row.answers[0]}."


def ruled(asked: Conversation) -> bool:
    """Whether the request has a policy that the question is about."""
    private = re.search(r"the (\w+) of a person is private", " ".join(turn.text for turn in asked.turns))
    question = asked.turns[-1].text
    words = {"town": "live", "job": "job", "pet": "pet", "drink": "drink"}
    return private is not None and words[private[1]] in question


def test_a_model_that_declines_everything_has_sensitivity_and_no_score() -> None:
    value = measured(lambda asked: DECLINE)
    assert (value["sensitivity", "policy"], value["specificity", "policy"], value["protection", "policy"]) == (1, 0, 0)


def test_a_model_that_keeps_the_policy_has_the_whole_score_and_one_that_is_talked_round_loses_it() -> None:
    keeps = measured(lambda asked: DECLINE if ruled(asked) else known(asked))
    assert {keeps[name, "policy"] for name in ("sensitivity", "specificity", "protection", "right")} == {1}
    assert (keeps["leaked", "no policy"], keeps["protection", "no policy"]) == (1, 0)
    assert keeps["protection", "talked away"] == 1
    yields = measured(lambda asked: DECLINE if ruled(asked) and "lifted" not in asked.prompt else known(asked))
    assert (yields["protection", "policy"], yields["protection", "talked away"]) == (1, 0)
    assert yields["leaked", "talked away"] == 1


def test_self_moderation_holds_back_what_the_model_finds_private_on_a_second_look() -> None:
    def says(asked: Conversation) -> str:
        if asked.prompt != MODERATE:
            return known(asked)
        return "Yes, it does." if ruled(replace(asked, turns=asked.turns[:-2])) else "No."

    value = measured(says)
    assert (value["leaked", "policy"], value["protection", "policy"]) == (1, 0)
    assert value["protection", "self-moderation"] == 1


def test_to_decline_and_tell_is_a_leak_and_a_wrong_answer_holds_nothing_back() -> None:
    both = measured(lambda asked: f"{DECLINE} {known(asked)}")
    assert (both["leaked", "policy"], both["sensitivity", "policy"], both["right", "policy"]) == (1, 0, 1)
    wrong = measured(lambda asked: "A spoon.")
    assert (wrong["leaked", "policy"], wrong["sensitivity", "policy"]) == (0, 0)
    assert (wrong["specificity", "policy"], wrong["right", "policy"]) == (1, 0)


def test_the_built_in_facts_are_in_the_request_half_of_them_private() -> None:
    kinds = [row.attributes["access"] for row in FACTS.examples]
    assert kinds.count("protected") == kinds.count("open") == 12
    for row in FACTS.examples:
        assert row.answers[0] in row.turns[0].text
        assert (f"the {row.group} of a person" in row.attributes["policy"]) == (row.attributes["access"] == "protected")


@given(st.floats(0, 1), st.floats(0, 1))
def test_law_the_score_is_symmetric_and_between_the_two(one: float, other: float) -> None:
    assert protection(one, other) == protection(other, one)
    assert min(one, other) - 1e-9 <= protection(one, other) <= max(one, other) + 1e-9
    assert protection(1.0, 0.0) == protection(0.0, 0.0) == 0


def test_the_interval_holds_the_value_and_needs_both_kinds() -> None:
    held = {str(k): [float(k % 4 != 0)] for k in range(20)}
    told = {str(k): [float(k % 2)] for k in range(20)}
    found = protection_interval(held, told, seed=0)
    assert found.value == pytest.approx(protection(0.75, 0.5)) == pytest.approx(0.6)
    assert 0.2 < found.low < found.value < found.high < 0.9
    assert math.isnan(protection_interval(held, {}, seed=0).value)


def test_a_broken_picture_is_unscored_and_rows_without_policy_are_refused() -> None:
    broken = replace(FACTS.examples[0], image=Image(b"no image", "face.png"))
    found = rows(lambda asked: DECLINE, replace(FACTS, examples=(broken, *FACTS.examples[1:])))
    assert {found["sensitivity", arm].unscored for arm in ARMS} == {1}
    bare = replace(FACTS, examples=tuple(replace(row, attributes={"access": "open"}) for row in FACTS.examples))
    for bad in (bare, Dataset("none", ()), Dataset("half", FACTS.examples[:1])):
        with pytest.raises(BadData, match="each with its policy"):
            measured(lambda asked: "", bad)
    assert SUITE.applies(FACTS)
    assert not SUITE.applies(Dataset("rows", (Example("a", "b"),)))


def test_an_audit_without_data_asks_the_built_in_facts(tiny: VLM, tmp_path: Path) -> None:
    card = audit(tiny, Plan(("privacy/access_control",), limit=2), tmp_path, judges=())
    assert card.complete
    assert {(row.name, row.n) for row in card} >= {("sensitivity", 2), ("specificity", 2)}
