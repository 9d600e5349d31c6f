"""Asks many views of one loaded model the same questions, and loses nothing.

An audit goes through Inspect, which costs seconds a run; a study has hundreds of settings. It asks
the same questions of the same suites, has the same judge read them, decodes with the same model
layer and writes every reply and verdict to the same kind of files, without the engine in between. A
request that no edit of a mend can touch is asked of the base model once, for all settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlmend.audit.journal import Journal
from vlmend.audit.judging import Bench
from vlmend.audit.suite import Answer, Condition, Question, Suite, pixels_of
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.metrics.stats import PairedTest, mcnemar
from vlmend.core.verdicts import Judge
from vlmend.errors import SampleError, UsageError
from vlmend.models.vlm import VLM

__all__ = ["BATCH", "Asker", "Panel", "changed", "panel"]

BATCH = 32


@dataclass(frozen=True)
class Panel:
    """Questions of one suite that are asked of every setting."""

    suite: Suite
    questions: tuple[Question, ...]

    def only(self, *conditions: Condition) -> Panel:
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
        judge: Reads the replies of suites that it suits; the others mark their own.
        progress: Called after each batch with the number of replies that it gave.

    Raises:
        UsageError: The judge cannot tell what declines.
    """

    def __init__(
        self,
        target: VLM,
        folder: Path,
        max_new_tokens: int,
        judge: Judge,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        if judge.kind != "refusal":
            raise UsageError(
                f"{judge.id} does not tell which replies decline, and a study needs that for its price.",
                "Choose one of that kind, such as --judge refusal; vlmend rejudge takes the others.",
            )
        self.target = target
        self.judge = judge
        self.sampling = Sampling(max_new_tokens)
        self._journal = Journal(folder / "replies.jsonl")
        self._bench = Bench(folder / "verdicts.jsonl")
        self._progress = progress

    def ask(self, asked: Panel, mends: Sequence[Mend] = ()) -> list[Answer]:
        """An answer to every question of the panel, in its order."""
        conversations = [self._conversation(question) for question in asked.questions]
        views = {with_image: self._view(mends, with_image) for with_image in (False, True)}
        replies: dict[int, Reply | SampleError] = {}
        for with_image, view in views.items():
            rows = [k for k, c in enumerate(conversations) if c.has_image == with_image]
            for row, problem in self._broken(rows, conversations):
                replies[row] = problem
            replies |= self._replies(view, [k for k in rows if k not in replies], conversations)
        return self._read(asked, [asked.suite.answer(q, replies[k]) for k, q in enumerate(asked.questions)])

    def _read(self, asked: Panel, answers: list[Answer]) -> list[Answer]:
        """The answers with the judge's labels, where the suite has its replies judged."""
        if self.judge.kind not in asked.suite.judged:
            return answers
        pictures = {q.id: q.image for q in asked.questions if isinstance(q.image, Image)}
        verdicts = self._bench.read(self.judge, answers, pictures, lambda count: None)
        return [replace(a, label=v.label, reason=v.reason) for a, v in zip(answers, verdicts, strict=True)]

    def _view(self, mends: Sequence[Mend], with_image: bool) -> VLM:
        """The view under the mends that can touch such a request."""
        view = self.target
        for mend in mends:
            view = view.with_mend(mend) if mend.touches(with_image) else view
        return view

    def _conversation(self, question: Question) -> Conversation:
        return Conversation.ask(question.prompt, pixels_of(question, self.target.image_side))

    def _broken(self, rows: Sequence[int], conversations: Sequence[Conversation]) -> Iterable[tuple[int, SampleError]]:
        """Rows whose image cannot be read: they stay unscored and stop nobody else."""
        for row in rows:
            try:
                for image in conversations[row].images:
                    image.decode()
            except SampleError as problem:
                yield row, problem

    def _replies(
        self, view: VLM, rows: Sequence[int], conversations: Sequence[Conversation]
    ) -> dict[int, Reply | SampleError]:
        known = {k: self._journal.get(view.id, conversations[k], self.sampling) for k in rows}
        found: dict[int, Reply | SampleError] = {k: reply for k, reply in known.items() if reply is not None}
        missing = sorted((k for k in rows if k not in found), key=lambda k: len(conversations[k].prompt))
        self._progress(len(found))
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            replies = view.generate([conversations[k] for k in batch], self.sampling)
            self._journal.write(
                [(view.id, conversations[k], self.sampling, r) for k, r in zip(batch, replies, strict=True)]
            )
            found |= dict(zip(batch, replies, strict=True))
            self._progress(len(batch))
        return found


def changed(before: Sequence[Answer], after: Sequence[Answer], hit: Collection[str]) -> PairedTest:
    """Exact McNemar on the answers that both scored; `hit` are the verdicts that count."""
    first = {answer.id: answer.label for answer in before}
    pairs = [(first[a.id], a.label) for a in after if a.id in first and "unscored" not in (first[a.id], a.label)]
    return mcnemar([b in hit for b, _ in pairs], [a in hit for _, a in pairs])
