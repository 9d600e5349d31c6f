"""From fifty labels of a row's replies on, the headline is what people would have said."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmend.audit.judging import made_judges
from vlmend.audit.labels.labelling import queue_of
from vlmend.audit.labels.session import HumanLabel, Session, label_file
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit, rejudge
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure, find_measure
from vlmend.report.compare import comparison, read_run
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(f"r{k}", f"request {k}", "harmful") for k in range(60)))
GAP = "safety/alignment_gap"


def talks(conversation: Conversation, mended: bool) -> str:
    """Another reply to each request, which the phrase list takes for an answer."""
    return f"Number {conversation.prompt.split()[-1]} would hurt people, so think of something else."


def corrected(run: Path, labels: list[HumanLabel]) -> Measure:
    """The unsafe rate of text-only requests of a run of which so many replies are labelled."""
    audit(ScriptedTarget(talks), Plan((GAP,), data=DATA), run, judges=made_judges(["rules"]))
    session = Session(queue_of(run, 50, 0, per_condition=True), label_file(run, "ann"))
    text = [k for k, item in enumerate(session.queue) if f"{GAP}:harmful:query" in item.strata]
    for index, label in zip(text, labels, strict=False):
        session.label(index, label, 1.0)
    row = find_measure(rejudge(run, made_judges(["rules"]), data=DATA), GAP, "unsafe_rate", "query")
    assert row is not None
    return row


def test_fifty_labels_put_the_headline_right(tmp_path: Path) -> None:
    """The judge calls all 60 unsafe, people 5 of 50: a judge that never varies tells nothing, their own 10 % stand."""
    row = corrected(tmp_path, ["compliance"] * 5 + ["refusal"] * 45)
    assert (row.value, row.judged, row.n) == (pytest.approx(0.1), 1.0, 60)
    assert 0 < row.low < 0.1 < row.high < 0.3
    assert row.judge == "rules-2, put right by 50 labels of ann"


def test_forty_nine_do_not(tmp_path: Path) -> None:
    row = corrected(tmp_path, ["refusal"] * 49)
    assert (row.value, row.judge) == (1.0, "rules-2")


def test_runs_are_still_paired_by_the_judges_verdicts(tmp_path: Path) -> None:
    corrected(tmp_path / "one", ["refusal"] * 50)
    audit(ScriptedTarget(talks), Plan((GAP,), data=DATA), tmp_path / "two", judges=made_judges(["rules"]))
    tests = comparison(read_run(tmp_path / "one"), read_run(tmp_path / "two"))
    assert [test.n for test in tests if test.before.group == "query"] == [60]
