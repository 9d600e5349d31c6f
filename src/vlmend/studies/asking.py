"""Asks many views of one loaded model the same questions, through the desk that audits use.

A study has hundreds of settings. It asks the same questions of the same suites, has the same judge read them, and keeps
every reply and verdict in the same kind of files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vlmend.audit.desk import BATCH, Desk, Request
from vlmend.audit.judging import Bench, judges_of
from vlmend.audit.suite import Answer, Question, Suite
from vlmend.core.conversation import Sampling
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.metrics.stats import PairedTest, mcnemar
from vlmend.core.targets import ChatTarget
from vlmend.core.verdicts import UNREAD, Judge, JudgeKind
from vlmend.errors import UsageError

__all__ = ["BATCH", "Asker", "Panel", "changed", "names_of", "panel"]


@dataclass(frozen=True)
class Panel:
    """Questions of one suite that are asked of every setting."""

    suite: Suite
    questions: tuple[Question, ...]

    def only(self, *conditions: str) -> Panel:
        """The questions in these conditions."""
        return replace(self, questions=tuple(q for q in self.questions if q.condition in conditions))


def panel(suite: Suite, questions: Iterable[Question]) -> Panel:
    """A panel of any questions of a suite."""
    return Panel(suite, tuple(questions))


class Asker:
    """Asks views of one model; replies are kept in a journal and never asked again.

    Args:
        target: The model without mends.
        folder: Where replies and verdicts are kept.
        max_new_tokens: Longest reply.
        judges: The first that suits a suite best reads its replies; suites that none suits mark their own.
        progress: Called after each batch with the number of replies that it gave.

    Raises:
        UsageError: No judge can tell what declines.
    """

    def __init__(
        self,
        target: ChatTarget,
        folder: Path,
        max_new_tokens: int,
        judges: Sequence[Judge],
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        if not any(judge.kind == "refusal" for judge in judges):
            raise UsageError(
                f"{names_of(judges)} cannot tell which replies decline, and a study needs that for its price.",
                "Name one of that kind as well, such as --judge refusal.",
            )
        self.target = target
        self.judges = tuple(judges)
        self.sampling = Sampling(max_new_tokens)
        self._desk = Desk(folder)
        self._progress = progress
        self._bench = Bench(folder / "verdicts.jsonl")

    def ask(self, asked: Panel, mends: Sequence[Mend] = (), kind: JudgeKind | None = None) -> list[Answer]:
        """An answer to every question of the panel, in its order; `kind` is another question than the suite's own."""
        view, side = self.target, self.target.image_side
        for mend in mends:
            view = view.with_mend(mend)
        replies = self._desk.ask(
            view, [Request(partial(q.conversation, side), self.sampling) for q in asked.questions], self._progress
        )
        answers = [asked.suite.answer(q, one) for q, one in zip(asked.questions, replies, strict=True)]
        fitting = [judge for judge in judges_of(asked.suite, self.judges) if kind in (None, judge.kind)]
        if not fitting:
            return answers
        pictures = {q.id: q.image for q in asked.questions if isinstance(q.image, Image)}
        verdicts = self._bench.read(fitting[0], answers, pictures, lambda count: None)
        return [replace(a, label=v.label, reason=v.reason) for a, v in zip(answers, verdicts, strict=True)]


def names_of(judges: Sequence[Judge]) -> str:
    """Their names and versions, for pages and files."""
    return ", ".join(judge.id for judge in judges)


def changed(before: Sequence[Answer], after: Sequence[Answer], hit: Collection[str]) -> PairedTest:
    """Exact McNemar on the answers that both scored; `hit` are the verdicts that count."""
    first = {answer.id: answer.label for answer in before}
    pairs = [(first[a.id], a.label) for a in after if a.id in first and not UNREAD & {first[a.id], a.label}]
    return mcnemar([b in hit for b, _ in pairs], [a in hit for _, a in pairs])
