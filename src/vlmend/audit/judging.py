"""Asks judges about replies: each exchange once, kept on disk, with patience.

A judge that cannot be asked (network, memory) is asked again with growing pauses, then one exchange
at a time; what it still cannot judge is unscored, is not kept, and is asked again by the next run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from vlmend import registry
from vlmend.audit.records import Records
from vlmend.audit.settling import settled, unanswered
from vlmend.core.images import Image
from vlmend.core.replies import spoken
from vlmend.core.verdicts import Exchange, Judge, ReadsAll, Verdict, VerdictLabel
from vlmend.errors import JudgeProblem, Stopped

if TYPE_CHECKING:  # the check of a command line reads this module before any library is there
    from vlmend.audit.suite import Answer, Suite

__all__ = ["JUDGES", "NOT_ASKED", "Bench", "Pictures", "judges_of", "made_judges"]

JUDGES = ("harmful", "refusal", "rules")
"""The judges of a run unless others are named: was it harmful, was it declined, and a check on the second."""

NOT_ASKED = "the judge could not be asked"
"""How the reason of a verdict begins that the judge, asked again, may give."""

CHUNK = 64
TRIES = 4
GIVE_UP_AFTER = 3
"""Single exchanges that fail in a row before the rest of their chunk is left unscored."""

Pictures = Mapping[str, Image]
"""Sample id -> the image that came with the request."""

FIELDS = frozenset({"judge", "digest", "label", "reason", "scores"})


class Bench:
    """Verdicts of one run folder.

    Args:
        file: JSONL file of verdicts; read if it is there.
        pause_s: First pause before a judge is asked again; each next one is twice as long.
    """

    def __init__(self, file: Path, pause_s: float = 1.0) -> None:
        self._records = Records(file, FIELDS, good=_usable)
        self._pause_s = pause_s

    def read(
        self, judge: Judge, answers: Sequence[Answer], pictures: Pictures, progress: Callable[[int], None]
    ) -> list[Verdict]:
        """A verdict on each answer; the judge reads those that nothing else settles, without their thoughts.

        It reads what is wanted, without what a condition or an attack put around it. A `ReadsAll` reads every reply
        that there is, and its prompt, as they are.
        """
        whole = isinstance(judge, ReadsAll)
        found = unanswered(answers) if whole else settled(answers)
        asked = [answer for answer in answers if answer.id not in found]
        exchanges = [
            Exchange(one.prompt, one.reply, pictures.get(one.id))
            if whole
            else Exchange(one.wanted, spoken(one.reply) or "", pictures.get(one.id))
            for one in asked
        ]
        found |= {a.id: v for a, v in zip(asked, self.verdicts(judge, exchanges, progress), strict=True)}
        return [found[answer.id] for answer in answers]

    def verdicts(
        self, judge: Judge, exchanges: Sequence[Exchange], progress: Callable[[int], None] = lambda done: None
    ) -> list[Verdict]:
        """A verdict on each, in order; equal exchanges are judged once."""
        name = [judge.id, judge.digest]
        keys = [hashlib.sha256(json.dumps([*name, exchange.digest]).encode()).hexdigest() for exchange in exchanges]
        asked = dict(zip(keys, exchanges, strict=True))
        missing = [key for key in asked if key not in self._records.rows]
        problems: dict[str, JudgeProblem] = {}
        progress(len(asked) - len(missing))
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            try:
                found = self._ask(judge, [asked[key] for key in chunk])
            except Stopped as stopped:
                self._keep(judge, chunk, stopped.outcomes)
                raise
            problems |= {key: one for key, one in zip(chunk, found, strict=True) if isinstance(one, JudgeProblem)}
            self._keep(judge, chunk, found)
            progress(len(chunk))
        return [_unscored(problems[key]) if key in problems else _verdict(self._records.rows[key]) for key in keys]

    def _keep(self, judge: Judge, keys: Sequence[str], found: Sequence[object]) -> None:
        """Write down the verdicts among what came."""
        given = zip(keys, found, strict=False)  # a judge that was stopped tells of the first ones
        self._records.write([_row(judge, key, one) for key, one in given if isinstance(one, Verdict)])

    def _ask(self, judge: Judge, exchanges: list[Exchange]) -> Sequence[Verdict | JudgeProblem]:
        tries = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(multiplier=self._pause_s),
            retry=retry_if_exception_type(JudgeProblem),
            reraise=True,
        )
        try:
            return tries(judge.judge, exchanges)
        except JudgeProblem:
            return self._one_by_one(judge, exchanges)

    def _one_by_one(self, judge: Judge, exchanges: list[Exchange]) -> list[Verdict | JudgeProblem]:
        found: list[Verdict | JudgeProblem] = []
        for exchange in exchanges:
            last = found[-GIVE_UP_AFTER:]
            if len(last) == GIVE_UP_AFTER and all(isinstance(one, JudgeProblem) for one in last):
                found.append(last[-1])
                continue
            try:
                found += judge.judge([exchange])
            except JudgeProblem as problem:
                found.append(problem)
            except Stopped as stopped:
                raise Stopped([*found, *stopped.outcomes]) from None
        return found


def made_judges(names: Sequence[str]) -> list[Judge]:
    """Judges by `NAME` or `NAME:ARGUMENT`."""
    return [registry.make_judge(name) for name in names]


def judges_of(suite: Suite, judges: Sequence[Judge]) -> list[Judge]:
    """The judges that can give a suite's verdicts: those that answer its own question first, else in their order."""
    fitting = [judge for judge in judges if judge.kind in suite.judged]
    return sorted(fitting, key=lambda judge: suite.judged.index(judge.kind))


def _usable(row: dict[str, Any]) -> bool:
    """Whether the values of a row are those of a verdict; a fault of the disk can leave JSON of another kind."""
    scores = row["scores"]
    return row["label"] in get_args(VerdictLabel) and isinstance(row["reason"], str) and isinstance(scores, dict)


def _unscored(problem: JudgeProblem) -> Verdict:
    return Verdict("unscored", f"{NOT_ASKED}: {problem.message}")


def _row(judge: Judge, key: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "key": key, "judge": judge.id, "digest": judge.digest,
        "label": verdict.label, "reason": verdict.reason, "scores": dict(verdict.scores),
    }  # fmt: skip


def _verdict(row: dict[str, Any]) -> Verdict:
    return Verdict(row["label"], row["reason"], row["scores"])
