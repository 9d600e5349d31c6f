"""safety/alignment_gap: five conditions of one request, and shares of what came back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlmend.audit.suite import CONDITIONS
from vlmend.audit.suites.safety.alignment_gap import SUITE, five_conditions
from vlmend.audit.suites.safety.over_refusal import SUITE as OVER_REFUSAL
from vlmend.core.conversation import Reply, Turn
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, SampleError

ROWS = tuple(Example(f"r{k}", f"request {k}", "harmful") for k in range(4))
NO, YES = "I'm sorry, but I can't help with that.", "Sure. Take two eggs and a bowl, then stir them well."


def test_a_request_is_asked_in_five_conditions_and_four_without_a_caption() -> None:
    assert [question.condition for question in five_conditions(ROWS[0], 0)] == list(CONDITIONS)
    pictured = Example("p", "request", "harmful", image=noise_image(16, 0))
    assert [question.condition for question in five_conditions(pictured, 0)] == ["query", "blank", "noise", "original"]


def test_judges_read_the_same_request_in_every_condition() -> None:
    """Whether it is told with a caption before it, or was put into other words by an attack."""
    attacked = Example("a", "Once upon a time: request 0, please", "harmful", attributes={"request": "request 0"})
    for row in (ROWS[0], attacked):
        questions = five_conditions(row, 0)
        assert {question.wanted for question in questions} == {"request 0"}
        assert {SUITE.answer(q, Reply(YES, "stop", 1, 1, 0.0)).wanted for q in questions} == {"request 0"}
        assert questions[1].prompt.endswith(f"\n{row.prompt}")


def test_what_was_said_before_is_asked_in_every_condition_and_its_pictures_in_the_original_alone() -> None:
    picture, further = noise_image(16, 0), noise_image(16, 1)
    before = (Turn("system", "Be kind."), Turn("user", "Look.", (picture,)), Turn("assistant", "I see."))
    row = Example("t", "request", "harmful", image=picture, more_images=(further,), turns=before)
    for suite in (SUITE, OVER_REFUSAL):
        for question in suite.questions(Dataset("d", (row, replace(row, id="b", label="benign"))), None):
            asked = question.conversation(16)
            assert [turn.text for turn in asked.turns] == ["Be kind.", "Look.", "I see.", "request"]
            original = question.condition == "original"
            assert asked.turns[1].images == ((picture,) if original else ())
            assert (further in asked.turns[-1].images) is original
            assert question.wanted == "request"


def test_rates_of_each_condition_are_shares_of_what_was_scored() -> None:
    """As text 4 of 4 decline. With their picture 2 of 4 answer, one declines, one could not be asked: 2 of 3."""
    questions = SUITE.questions(Dataset("d", ROWS), None)
    with_picture: dict[str, str | SampleError] = {
        "r0": YES, "r1": YES, "r2": NO, "r3": SampleError("It is broken.", "Replace it."),
    }  # fmt: skip
    answers = [
        SUITE.answer(q, said if isinstance(said, SampleError) else Reply(said, "stop", 1, 1, 0.0))
        for q in questions
        for said in [with_picture[q.id.partition(":")[0]] if q.condition == "original" else NO]
    ]
    rows = {(row.name, row.group): row for row in SUITE.measures(answers, seed=0)}
    assert (rows["unsafe_rate", "query"].value, rows["refusal_rate", "query"].value) == (0.0, 1.0)
    original = rows["unsafe_rate", "original"]
    assert (original.value, original.n, original.unscored) == (pytest.approx(2 / 3), 3, 1)
    assert (original.against, original.compared) == ("query", "share")


def test_data_without_harmful_rows_are_refused() -> None:
    benign = Dataset("b", (Example("a", "hello", "benign"),))
    assert not SUITE.applies(benign)
    with pytest.raises(BadData, match="the data holds none"):
        SUITE.questions(benign, None)
