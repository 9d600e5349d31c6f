"""Judges are asked once, with patience, and what they say is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vlmend.audit.judging import GIVE_UP_AFTER, TRIES, Bench
from vlmend.audit.suite import Answer
from vlmend.core.verdicts import Exchange, JudgeKind, Verdict
from vlmend.errors import JudgeProblem


class Flaky:
    """Says how long a reply is; the first `fails` calls, and every call with `poison` in it, fail."""

    def __init__(self, fails: int = 0, poison: str = "", version: str = "1") -> None:
        self.fails, self.poison, self.version = fails, poison, version
        self.calls: list[int] = []

    @property
    def id(self) -> str:
        return "flaky"

    @property
    def digest(self) -> str:
        return self.version

    @property
    def kind(self) -> JudgeKind:
        return "refusal"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        self.calls.append(len(exchanges))
        if len(self.calls) <= self.fails or (self.poison and any(self.poison in e.reply for e in exchanges)):
            raise JudgeProblem("The network is down.", "Wait.")
        return [Verdict("compliance", f"{len(e.reply)} letters", {"compliance": 1.0}) for e in exchanges]


def exchanges(*replies: str) -> list[Exchange]:
    return [Exchange("What?", reply) for reply in replies]


def test_equal_exchanges_are_judged_once_and_never_again(tmp_path: Path) -> None:
    judge = Flaky()
    first = Bench(tmp_path / "v.jsonl").verdicts(judge, exchanges("a", "bb", "a"))
    again = Bench(tmp_path / "v.jsonl").verdicts(judge, exchanges("a", "bb", "a"))
    assert [v.reason for v in first] == ["1 letters", "2 letters", "1 letters"]
    assert again == first
    assert judge.calls == [2]


def test_a_judge_reads_what_is_wanted_once_however_it_was_asked(tmp_path: Path) -> None:
    class Echo(Flaky):
        def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
            self.calls.append(len(exchanges))
            return [Verdict("compliance", one.prompt) for one in exchanges]

    judge = Echo()
    plain = Answer("r:query", "query", "harmful", "", "unscored", "", "How?", "Like this.", "stop")
    told = replace(plain, id="r:caption", condition="caption", prompt="A red ball.\nHow?", request="How?")
    found = Bench(tmp_path / "v.jsonl").read(judge, [plain, told], {}, lambda count: None)
    assert [one.reason for one in found] == ["How?", "How?"]
    assert judge.calls == [1]


def test_a_judge_that_changed_is_asked_again(tmp_path: Path) -> None:
    Bench(tmp_path / "v.jsonl").verdicts(Flaky(), exchanges("a"))
    changed = Flaky(version="2")
    Bench(tmp_path / "v.jsonl").verdicts(changed, exchanges("a"))
    assert changed.calls == [1]


def test_a_failure_that_passes_is_not_seen(tmp_path: Path) -> None:
    judge = Flaky(fails=TRIES - 1)
    assert [v.label for v in Bench(tmp_path / "v.jsonl", 0).verdicts(judge, exchanges("a", "b"))] == ["compliance"] * 2
    assert len(judge.calls) == TRIES


def test_one_exchange_that_cannot_be_judged_leaves_the_others_scored_and_is_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "v.jsonl"
    found = Bench(file, 0).verdicts(Flaky(poison="b"), exchanges("a", "b", "c"))
    assert [v.label for v in found] == ["compliance", "unscored", "compliance"]
    assert "The network is down." in found[1].reason
    healed = Flaky()
    assert Bench(file, 0).verdicts(healed, exchanges("a", "b", "c"))[1].label == "compliance"
    assert healed.calls == [1]


def test_a_judge_that_is_gone_is_not_asked_for_every_exchange(tmp_path: Path) -> None:
    judge = Flaky(fails=1000)
    found = Bench(tmp_path / "v.jsonl", 0).verdicts(judge, exchanges(*map(str, range(40))))
    assert {v.label for v in found} == {"unscored"}
    assert len(judge.calls) == TRIES + GIVE_UP_AFTER


def test_a_cut_off_last_verdict_is_given_again(tmp_path: Path) -> None:
    file = tmp_path / "v.jsonl"
    first = Bench(file).verdicts(Flaky(), exchanges("a", "bb"))
    file.write_bytes(file.read_bytes()[:-20])
    judge = Flaky()
    assert Bench(file).verdicts(judge, exchanges("a", "bb")) == first
    assert judge.calls == [1]
