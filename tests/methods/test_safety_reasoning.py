"""safety_reasoning: four steps are parsed as written, broken ones fail and show nothing, step four alone is shown."""

from __future__ import annotations

import pytest

from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import RewritePrompt, ShowReasoned
from vlmend.core.examples import Dataset
from vlmend.core.images import noise_image
from vlmend.core.reasoning import Reasoning, parsed
from vlmend.core.verdicts import Exchange
from vlmend.errors import BadParameter
from vlmend.methods.safety.safety_reasoning import SafetyReasoning
from vlmend.models.editing.inputs import rewritten
from vlmend.models.editing.replies import answer
from vlmend.testing import ScriptedTarget
from vlmend.testing.fakes import tiny_vlm

NOTHING = Dataset("none", ())
WHOLE = Reasoning("a knife on a table", "somebody could be hurt", "refuse", "I'm sorry, but I can't help with that.")
SAFE, UNSAFE = noise_image(16, 1), noise_image(16, 2)


class Engine:
    """Decodes by a script, and keeps what it was asked."""

    def __init__(self, script, edits) -> None:  # type: ignore[no-untyped-def]
        self.target, self.edits, self.sampled = ScriptedTarget(script), edits, list[int]()

    def decode(self, batch, sampling):  # type: ignore[no-untyped-def]
        self.sampled += [sampling.max_new_tokens] * len(batch)
        return self.target.generate([rewritten(self.edits, one) for one in batch], sampling)


def shown(script, *asked: Conversation, **parameters) -> tuple[list[str], list[int]]:  # type: ignore[no-untyped-def]
    mend = SafetyReasoning(**parameters).fit(tiny_vlm(), NOTHING, seed=0)
    engine = Engine(script, mend.edits)
    replies = answer(engine, mend.edits, asked, Sampling(16))
    return [reply.text for reply in replies], engine.sampled


def test_what_is_written_is_parsed_as_it_was() -> None:
    assert parsed(WHOLE.written()) == WHOLE
    assert parsed(f"Well.\n{WHOLE.written().upper()}") == Reasoning(
        WHOLE.seen.upper(), WHOLE.risk.upper(), "refuse", WHOLE.reply.upper()
    )
    several = Reasoning("a\nb", "c", "answer", "One.\nReply: two.")
    assert parsed(several.written()) == several


@pytest.mark.parametrize("broken", [
    "", "No.", "Seen: a\nRisk: b\nReply: c", "Seen: a\nRisk: b\nDecision: maybe\nReply: c",
    "Seen:\nRisk: b\nDecision: answer\nReply: c", "Risk: b\nSeen: a\nDecision: answer\nReply: c",
    "Seen: a\nRisk: b\nDecision: answer\nReply: ",
])  # fmt: skip
def test_reasoning_that_is_not_of_the_form_is_none(broken: str) -> None:
    assert parsed(broken) is None


def test_step_four_alone_is_shown_and_only_to_requests_with_an_image() -> None:
    texts, sampled = shown(
        lambda asked, mended: WHOLE.written(), Conversation.ask("how?", SAFE), Conversation.ask("how?")
    )
    assert texts == [WHOLE.reply, WHOLE.written()]
    assert sorted(sampled) == [16, 16 + 128]


def test_broken_reasoning_shows_a_fixed_sentence_and_none_of_it() -> None:
    (text,), _ = shown(lambda asked, mended: "Seen: how to do harm.\nRisk: none.", Conversation.ask("how?", SAFE))
    assert text == "My reasoning came to no reply."
    verdict = RuleJudge().judge([Exchange("how do I do harm?", text)])[0]
    assert verdict.label not in {"unscored", "garbled", "refusal"}  # it counts, and for no refusal


def test_with_the_image_swapped_the_decision_flips() -> None:
    """An oracle that sees which picture it is decides by it: both replies of a pair are right."""

    def oracle(asked: Conversation, mended: bool) -> str:
        harm = asked.images[0].digest == UNSAFE.digest
        return (WHOLE if harm else Reasoning("a cake", "nothing", "answer", "Cut it in four.")).written()

    texts, _ = shown(oracle, Conversation.ask("how?", UNSAFE), Conversation.ask("how?", SAFE))
    assert texts == [WHOLE.reply, "Cut it in four."]


def test_the_control_has_the_same_instruction_and_no_steps() -> None:
    plain = SafetyReasoning(steps=False).fit(tiny_vlm(), NOTHING, seed=0).edits
    whole = SafetyReasoning().fit(tiny_vlm(), NOTHING, seed=0).edits
    assert [type(edit) for edit in plain] == [RewritePrompt]
    assert [type(edit) for edit in whole] == [RewritePrompt, ShowReasoned]
    assert isinstance(plain[0], RewritePrompt)
    assert isinstance(whole[0], RewritePrompt)
    assert whole[0].after.startswith(plain[0].after)


def test_no_room_for_reasoning_is_refused() -> None:
    with pytest.raises(BadParameter, match="no room for reasoning"):
        SafetyReasoning(tokens=0).fit(tiny_vlm(), NOTHING, seed=0)
