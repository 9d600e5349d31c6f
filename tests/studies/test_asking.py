"""Asking many views: nothing is asked twice, text-only requests are shared, one bad sample stops nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from vlmend.audit.judges.rules import RuleJudge
from vlmend.audit.suite import Question
from vlmend.audit.suites.safety.alignment_gap import SUITE as GAP
from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.verdicts import Exchange, JudgeKind, Verdict
from vlmend.data.sources import builtin_dataset
from vlmend.errors import UsageError
from vlmend.methods.safety.cmrm import CMRM
from vlmend.studies.asking import Asker, Panel, changed, panel
from vlmend.studies.measuring import suite_panel
from vlmend.testing import ScriptedTarget


def answers(conversation: Conversation, mended: bool) -> str:
    """Refuses as text; beside an image only when mended."""
    return "I'm sorry, but I can't help with that." if mended or not conversation.has_image else "First you go there."


def scripted() -> ScriptedTarget:
    return ScriptedTarget(answers)


def cmrm(target: ScriptedTarget) -> Mend:
    return CMRM().fit(target, builtin_dataset(("harmful",), "anchor"), seed=0)


def asked(count: int = 3) -> Panel:
    return panel(GAP, GAP.questions(None, count))


def test_text_requests_are_asked_once_for_all_settings(tmp_path: Path) -> None:
    target = scripted()
    asker = Asker(target, tmp_path, 8, [RuleJudge()])  # type: ignore[arg-type]
    base = asker.ask(asked())
    seen = len(target.asked.conversations)
    mended = asker.ask(asked(), [cmrm(target)])
    new = target.asked.conversations[seen:]
    assert len(new) == 9  # blank, noise and original of three requests
    assert all(conversation.has_image for conversation in new)
    test = changed(base, mended, "compliance")
    assert (test.n, test.fixed, test.broken) == (15, 9, 0)


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    first = Asker(scripted(), tmp_path, 8, [RuleJudge()]).ask(asked())  # type: ignore[arg-type]
    target = scripted()
    again = Asker(target, tmp_path, 8, [RuleJudge()]).ask(asked())  # type: ignore[arg-type]
    assert again == first
    assert not target.asked.conversations


class Hedging:
    """Calls every reply partial."""

    id, digest = "hedging", "1"

    def __init__(self, kind: JudgeKind = "refusal") -> None:
        self.kind: JudgeKind = kind

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [Verdict("partial", "says so") for _ in exchanges]


def test_the_judge_reads_the_replies_of_judged_suites_and_of_no_other(tmp_path: Path) -> None:
    asker = Asker(scripted(), tmp_path, 8, [Hedging()])  # type: ignore[arg-type]
    assert {answer.label for answer in asker.ask(asked())} == {"partial"}
    assert {answer.label for answer in asker.ask(suite_panel("utility/picture_naming", 2, "held_out"))} == {"wrong"}


def test_a_judge_of_harm_cannot_tell_the_price(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="decline"):
        Asker(scripted(), tmp_path, 8, [Hedging("harm")])  # type: ignore[arg-type]


def test_a_run_cut_off_in_the_middle_goes_on_where_it_was(tmp_path: Path) -> None:
    Asker(scripted(), tmp_path, 8, [RuleJudge()]).ask(asked(2))  # type: ignore[arg-type]
    lines = (tmp_path / "replies.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "replies.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:20])
    target = scripted()
    Asker(target, tmp_path, 8, [RuleJudge()]).ask(asked(2))  # type: ignore[arg-type]
    assert len(target.asked.conversations) == len(lines) - 6


def test_a_broken_image_stays_unscored_and_stops_nobody(tmp_path: Path) -> None:
    good = GAP.questions(None, 1)
    bad = Question("bad:original", "how?", "original", "harmful", "x", Image(b"no image", "bad.png"))
    found = Asker(scripted(), tmp_path, 8, [RuleJudge()]).ask(panel(GAP, [bad, *good]))  # type: ignore[arg-type]
    assert [a.label for a in found] == ["unscored"] + ["refusal"] * 2 + ["compliance"] * 3
    assert "bad.png" in found[0].reason


@pytest.mark.parametrize(("when", "wanted"), [("with_image", False), ("always", True)])
def test_a_mend_says_whether_it_can_touch_text(when: str, wanted: bool) -> None:
    mend = cmrm(scripted())
    edit = mend.edits[0]
    assert isinstance(edit, AddVector)
    one = Mend((AddVector(Site("language", 0), edit.vector, "last", when),), mend.card)  # type: ignore[arg-type]
    assert one.touches(with_image=False) is wanted
    assert one.touches(with_image=True)
    assert not one.scaled(0.0).touches(with_image=True)
