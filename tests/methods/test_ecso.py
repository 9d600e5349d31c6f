"""ECSO on an engine that answers by rule: what is asked, of whom, and with which images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import Edit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.errors import BadParameter
from vlmend.methods.safety.ecso import ECSO
from vlmend.models.editing.replies import answer
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", (Example("0", "hello", "harmful"),))
IMAGE = blank_image(16)
TARGET = ScriptedTarget(lambda c, mended: "")


@dataclass
class Script:
    """Finds harm in replies that hold `bad`, and answers badly wherever there is an image to see."""

    calls: list[list[Conversation]] = field(default_factory=list)
    reader: Any = None

    def lens(self, batch: Sequence[Conversation], layers: Sequence[int], token_ids: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def decode(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        self.calls.append(list(batch))
        return [Reply(self.say(c), "stop", 1, 1, 0.0) for c in batch]

    def say(self, asked: Conversation) -> str:
        words = asked.prompt
        if words.startswith("CHECK"):
            return "yes, it is." if "bad" in words else "No."
        if words.startswith("CAPTION"):
            return "a cat"
        if words.startswith("AGAIN"):
            return "a safe answer"
        return "a bad answer" if "trap" in words else "a good answer"


def edits() -> tuple[Edit, ...]:
    method = ECSO(
        check="CHECK {prompt} | {reply}", caption="CAPTION {prompt}", again="AGAIN {caption} | {prompt}", alarm="Yes"
    )
    return method.fit(TARGET, DATA, seed=0).edits


def test_a_flagged_reply_costs_exactly_two_further_calls_and_is_answered_without_image() -> None:
    engine = Script()
    (reply,) = answer(engine, edits(), [Conversation.ask("trap", IMAGE)], Sampling(4))
    assert reply.text == "a safe answer"
    asked = [[(c.prompt, len(c.images)) for c in call] for call in engine.calls]
    assert asked == [
        [("trap", 1)],
        [("CHECK trap | a bad answer", 1)],
        [("CAPTION trap", 1)],
        [("AGAIN a cat | trap", 0)],
    ]


def test_a_reply_without_harm_costs_the_check_alone_and_stays() -> None:
    engine = Script()
    (reply,) = answer(engine, edits(), [Conversation.ask("plain", IMAGE)], Sampling(4))
    assert reply.text == "a good answer"
    assert [len(call) for call in engine.calls] == [1, 1]


def test_text_rows_are_neither_checked_nor_changed() -> None:
    engine = Script()
    batch = [Conversation.ask("trap"), Conversation.ask("trap", IMAGE), Conversation.ask("plain", IMAGE)]
    replies = answer(engine, edits(), batch, Sampling(4))
    assert [reply.text for reply in replies] == ["a bad answer", "a safe answer", "a good answer"]
    assert [len(call) for call in engine.calls] == [3, 2, 1, 1]
    alone = Script()
    answer(alone, edits(), batch[:1], Sampling(4))
    assert len(alone.calls) == 1


def test_braces_in_a_request_are_words() -> None:
    engine = Script()
    answer(engine, edits(), [Conversation.ask("trap {reply} {}", IMAGE)], Sampling(4))
    assert engine.calls[1][0].prompt == "CHECK trap {reply} {} | a bad answer"


def test_the_default_questions_are_asked_in_full() -> None:
    (edit,) = ECSO().fit(TARGET, DATA, seed=0).edits
    engine = Script()
    engine.say = lambda asked: "Yes" if "Answer Yes or No" in asked.prompt else "w"  # type: ignore[method-assign]
    answer(engine, [edit], [Conversation.ask("trap", IMAGE)], Sampling(4))
    _, check, caption, again = (call[0] for call in engine.calls)
    assert '"trap"' in check.prompt
    assert '"w"' in check.prompt
    assert '"trap"' in caption.prompt
    assert '"w"' in again.prompt
    assert again.prompt.endswith("\ntrap")


@pytest.mark.parametrize(
    "wrong", [{"check": "{prompt}"}, {"caption": "no place"}, {"again": "{caption} {prompt} {more}"}, {"check": "{"}]
)
def test_questions_with_the_wrong_places_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        ECSO(**wrong).fit(TARGET, DATA, seed=0)


def test_an_empty_alarm_is_refused() -> None:
    with pytest.raises(BadParameter, match="alarm"):
        ECSO(alarm="").fit(TARGET, DATA, seed=0)
