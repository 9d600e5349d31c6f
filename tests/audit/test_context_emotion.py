"""safety/context_emotion: who reads the face alone is told from who reads the scene; reasoning that breaks is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vlmend.audit.suite import Question
from vlmend.audit.suites.safety.context_emotion import BLIND, PLAIN, STEPS, SUITE, emotion_in
from vlmend.core.conversation import Reply
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData


def people() -> Dataset:
    """30 pictures: 18 glad, 12 sad; the face of every third says the other thing."""
    rows: list[Example] = []
    for k in range(30):
        truth = "glad" if k < 18 else "sad"
        face = {"glad": "sad", "sad": "glad"}[truth] if k % 3 == 0 else truth
        rows.append(Example(f"{k}", image=noise_image(16, k), answers=(truth,), attributes={"face": face}))
    return Dataset("people", tuple(rows))


def told(says: Callable[[Question], str], data: Dataset | None = None) -> dict[tuple[str, str], Measure]:
    asked = SUITE.questions(data or people(), None)
    answers = [SUITE.answer(one, Reply(says(one), "stop", 1, 1, 0.0)) for one in asked]
    return {(row.name, row.group): row for row in SUITE.measures(answers, seed=0)}


def reads(emotion: str, question: Question) -> str:
    return f"Face: plain.\nScene: busy.\nEmotion: {emotion}" if question.condition == STEPS else f"They feel {emotion}."


def test_a_model_that_reads_the_face_alone_fails_where_the_scene_decides() -> None:
    found = told(lambda one: reads(one.category, one))
    for condition in (PLAIN, STEPS):
        assert found["accuracy", f"face agrees:{condition}"].value == 1
        assert found["accuracy", f"face differs:{condition}"].value == 0
        assert found["follows_the_face", f"face differs:{condition}"].value == 1
    assert found["accuracy", PLAIN].value == pytest.approx(20 / 30)


def test_a_model_that_reads_the_scene_is_right_throughout() -> None:
    found = told(lambda one: reads(one.group, one))
    assert found["accuracy", PLAIN].value == found["macro_recall", STEPS].value == 1
    assert found["follows_the_face", f"face differs:{PLAIN}"].value == 0
    assert found["accuracy", PLAIN].says


def test_naming_the_commonest_emotion_gets_the_floor_and_no_more() -> None:
    """18 of 30 are glad; the mean of the recalls is one half for either word."""
    found = told(lambda one: reads("glad", one))
    row = found["accuracy", PLAIN]
    assert row.value == row.floor == 0.6
    assert found["macro_recall", PLAIN].value == found["macro_recall", PLAIN].floor == 0.5
    assert found["recall", f"sad:{PLAIN}"].value == 0
    assert found["accuracy", BLIND].value == 0.6


def test_reasoning_without_its_last_line_is_a_failure_and_is_counted() -> None:
    found = told(lambda one: "Face: glad. Scene: glad." if one.condition == STEPS else reads(one.group, one))
    row = found["accuracy", STEPS]
    assert (row.value, row.n, row.unscored) == (0, 30, 0)
    assert found["malformed_rate", STEPS].value == 1
    assert found["malformed_rate", PLAIN].value == 0


@pytest.mark.parametrize(
    ("reply", "steps", "emotion"),
    [
        ("Sad, not glad.", False, "sad"), ("They are gladly waiting", False, ""), ("I see a dog.", False, ""),
        ("Face: glad\nEmotion: sad", True, "sad"), ("emotion : Glad.\nEMOTION: sad", True, "sad"), ("sad", True, ""),
    ],
)  # fmt: skip
def test_an_emotion_is_read_as_a_whole_word(reply: str, steps: bool, emotion: str) -> None:
    assert emotion_in(reply, ["glad", "sad"], steps=steps) == emotion


def test_it_is_asked_with_the_picture_and_without() -> None:
    asked = SUITE.questions(people(), 1)
    assert [(one.condition, one.image is not None) for one in asked] == [(PLAIN, True), (STEPS, True), (BLIND, False)]
    assert asked[0].prompt == asked[2].prompt
    assert asked[0].prompt.endswith(": glad, sad.")


def test_pictures_of_things_are_no_people_and_one_emotion_is_no_question() -> None:
    thing = Example("a", image=noise_image(16, 1), answers=("cup",))
    assert not SUITE.applies(Dataset("d", (thing,)))
    with pytest.raises(BadData, match="two emotions or more"):
        SUITE.questions(Dataset("d", (thing,)), None)
