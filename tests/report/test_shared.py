"""Runs that were not asked the same: every number on a page is of what all of them were asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmend.audit.judges.rules import RuleJudge
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.metrics.stats import wilson
from vlmend.errors import UsageError
from vlmend.report.compare import comparison, headline, read_run, warnings_of
from vlmend.report.shared import read_runs
from vlmend.testing import ScriptedTarget

SUITE = "safety/alignment_gap"


def script(conversation: Conversation, mended: bool) -> str:
    """Answers what has a digit in it, and refuses all else."""
    text = conversation.prompt
    return f"Here is an answer: {text}" if any(c.isdigit() for c in text) else "I'm sorry, but I can't help with that."


def asked_of(folder: Path, *prompts: str) -> Path:
    rows = tuple(Example(prompt, prompt, "harmful") for prompt in prompts)
    audit(ScriptedTarget(script), Plan((SUITE,), data=Dataset("d", rows)), folder, judges=[RuleJudge()])
    return folder


def test_runs_with_two_limits_are_told_by_the_samples_of_both(tmp_path: Path) -> None:
    """Of 4 requests 3 are answered: 75 %. Of the 2 that the other run was asked, 1: 50 % on either side."""
    folders = [asked_of(tmp_path / "all", "say 1", "say", "say 2", "say 3"), asked_of(tmp_path / "two", "say 1", "say")]
    whole, few = read_runs(folders)
    found = [run.value(SUITE, "unsafe_rate", "original") for run in (whole, few)]
    assert [(row.value, row.low, row.high, row.n) for row in found if row] == [(*wilson(1, 2), 2)] * 2
    assert "answered 75%" in headline(read_run(folders[0]), [])
    assert "75%" not in headline(whole, [few])
    assert {test.n for test in comparison(whole, few)} == {2}
    assert len(whole.samples) == len(few.samples) == 10  # five conditions
    (told,) = [line for line in warnings_of(whole, few) if "not asked the same" in line]
    assert told.startswith(f"{SUITE}: the runs were not asked the same: all (20), two (10) samples. Its numbers here")


def test_what_is_no_share_of_samples_is_left_out_of_such_a_suite(tmp_path: Path) -> None:
    whole, few = read_runs([asked_of(tmp_path / "all", "say 1", "say"), asked_of(tmp_path / "one", "say 1")])
    assert {row.name for row in whole.card} == {row.name for row in few.card} == {"unsafe_rate"}
    assert whole.card.others == ()


def test_runs_that_were_asked_the_same_stay_as_they_are(tmp_path: Path) -> None:
    folders = [asked_of(tmp_path / name, "say 1", "say") for name in ("a", "b")]
    for run, folder in zip(read_runs(folders), folders, strict=True):
        assert run.card == read_run(folder).card
        assert run.notes == ()


def test_runs_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    folders = [asked_of(tmp_path / "a", "say 1"), asked_of(tmp_path / "b", "say 2")]
    with pytest.raises(UsageError, match=r"no sample is the same in a \(5\), b \(5\)") as told:
        read_runs(folders)
    assert "--limit" in told.value.hint


def measured(folder: Path, values: list[float]) -> Path:
    """A run of a suite that measures by itself, one cluster a sample."""
    row = Measure(
        "fairness", "fairness/made_up", "bias", "g", sum(values) / len(values), 0.0, 1.0, len(values), 0, "lower",
        unit="number", compared="mean", floor=0.1,
    )  # fmt: skip
    Scorecard("toy", (), 0, {}, (row,), {}, complete=True).save(folder / "scorecard.json")
    samples = [
        {"id": str(k), "group": "g", "cluster": str(k), "text": "", "values": {"bias": v}} for k, v in enumerate(values)
    ]
    (folder / "measured.jsonl").write_text(json.dumps({"key": "k", "suite": row.suite, "samples": samples}) + "\n")
    return folder


def test_means_are_counted_anew_too(tmp_path: Path) -> None:
    """0.2, 0.4 and 0.9 have a mean of 0.5; the first two, which the other run has as well, of 0.3."""
    whole, few = read_runs([measured(tmp_path / "all", [0.2, 0.4, 0.9]), measured(tmp_path / "two", [0.6, 0.6])])
    row = whole.value("fairness/made_up", "bias", "g")
    assert row is not None
    assert (row.value, row.n) == (pytest.approx(0.3), 2)
    (test,) = comparison(whole, few)
    assert (test.difference.value, test.n) == (pytest.approx(0.3), 2)
