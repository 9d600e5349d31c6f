"""Puts requests to a target, batch by batch, and keeps every reply before anyone sees it.

The one way in which vlmend asks: audits, studies and comparisons. What is in the journal is not asked again; what has
no reply is asked again by the next run. A request that fails alone, whatever the processor or the model raise, is left
without a reply by name, and the others of its batch are answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from vlmend.audit.journal import Journal
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.halving import by_halves
from vlmend.core.targets import ChatTarget, key_of
from vlmend.errors import BatchProblem, SampleError, Stopped, VlmendError, without_addresses

__all__ = ["BATCH", "Desk", "Request", "outcomes"]

BATCH = 32
"""Requests handed over at once; how many of them the model takes at a time, it decides itself."""

HARMLESS = Conversation.ask("Say: ok.")

WINDOW = 4
"""Batches' worth of requests that are looked at together, so that requests of like length share a batch."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to come. `build` makes it when its turn comes, so that made pictures are never held all at once."""

    build: Callable[[], Conversation]
    sampling: Sampling


class Desk:
    """Requests in, replies out, through one journal.

    A request that no edit of a mend can touch is asked of the model without that mend: its reply is the same bit for
    bit (a law of the contract of methods), and other runs may have it already.

    Args:
        folder: Holds `replies.jsonl`.
        batch: Largest batch, in requests.
        reuse: Folders of other runs; a reply that one of them holds to exactly this request is taken over.
        shards: Folders of parts of this run; their replies are taken over with what they cost.

    Attributes:
        sharded: Replies that the shards hold.
    """

    def __init__(
        self, folder: Path, batch: int = BATCH, reuse: Sequence[Path] = (), shards: Sequence[Path] = ()
    ) -> None:
        self.journal = Journal(folder / "replies.jsonl")
        self._others = [Journal(other / "replies.jsonl", foreign=True) for other in reuse]
        self._shards = [Journal(other / "replies.jsonl", foreign=True) for other in shards]
        self.sharded = sum(len(shard.keys) for shard in self._shards)
        self._batch = batch
        self._works: set[str] = set()

    def ask(
        self, target: ChatTarget, requests: Sequence[Request], progress: Callable[[int], None] = lambda count: None
    ) -> list[Reply | SampleError]:
        """The reply to each request, in order, or why it has none: `each`, all of them at once."""
        return list(self.each(target, requests, progress))

    def each(
        self, target: ChatTarget, requests: Iterable[Request], progress: Callable[[int], None] = lambda count: None
    ) -> Iterator[Reply | SampleError]:
        """The reply to each request, in order, or why it has none, handed on as they come and not held here.

        Args:
            target: Who is asked, its mends applied.
            requests: In any order; each is drawn when its turn comes.
            progress: Called with the number of requests that were settled, after each batch.

        Raises:
            VlmendError: The target answers nobody, the disk is full, or what was asked does not fit together.
            KeyboardInterrupt: The user stopped it; what was answered is kept.
        """
        for rows in self._windows(target, requests):
            self._settle(rows, progress)
            yield from (row.outcome for row in rows if row.outcome is not None)

    def unanswered(self, target: ChatTarget, requests: Iterable[Request]) -> list[str]:
        """The key of each request that would be asked of the target; empty where a journal has its reply, or where it
        cannot be made. Equal requests, which are asked once, have one key."""
        return [
            row.key if self.journal.get(row.key) is None and self._taken(row.key) is None else ""
            for rows in self._windows(target, requests)
            for row in rows
        ]

    def _windows(self, target: ChatTarget, requests: Iterable[Request]) -> Iterator[list[_Row]]:
        """The requests made, some at a time, each with who is asked and its key."""
        views = {with_image: _touched(target, with_image) for with_image in (False, True)}
        keys = {with_image: key_of(view) for with_image, view in views.items()}
        coming, size = iter(requests), WINDOW * self._batch
        while window := list(islice(coming, size)):
            rows = [_Row(request.sampling, _built(request)) for request in window]
            for row in rows:
                if isinstance(row.asked, Conversation):
                    row.view, target_key = views[row.asked.has_image], keys[row.asked.has_image]
                    row.key = self.journal.key(target_key, row.asked, row.sampling)
            yield rows

    def _settle(self, rows: Sequence[_Row], progress: Callable[[int], None]) -> None:
        """An outcome for every row: what is known, then what the model says."""
        known: dict[str, Reply] = {}
        for row in rows:
            if isinstance(row.asked, SampleError):
                row.outcome = row.asked
            elif (kept := self.journal.get(row.key)) is not None:
                row.outcome = kept
                self._works.update(() if row.view is None else (row.view.id,))
            elif (taken := self._taken(row.key)) is not None:
                row.outcome = known[row.key] = taken
        self.journal.write(known)
        self.journal.reused += len(known)
        first: dict[str, _Row] = {}
        waiting = [row for row in rows if row.outcome is None and first.setdefault(row.key, row) is row]
        progress(sum(row.outcome is not None for row in rows))
        for batch in self._batches(waiting):
            self._ask(batch)
            progress(len(batch))
        for row in rows:
            if row.outcome is None:  # asked by another row of the same words and pictures
                row.outcome = first[row.key].outcome
                progress(1)

    def _taken(self, key: str) -> Reply | None:
        """The reply of a shard, or of another run, in which its cost stays."""
        for shard in self._shards:
            if reply := shard.get(key):
                return reply
        return next((replace(reply, seconds=0.0) for other in self._others if (reply := other.get(key))), None)

    def _ask(self, batch: Sequence[_Row]) -> None:
        view = batch[0].view
        assert view is not None
        asked = [row.asked for row in batch if isinstance(row.asked, Conversation)]
        try:
            new = outcomes(view, asked, batch[0].sampling, view.id in self._works)
        except Stopped as stopped:
            if len(stopped.outcomes) == len(batch):
                ends = zip(batch, stopped.outcomes, strict=True)
                self.journal.write({row.key: one for row, one in ends if isinstance(one, Reply)})
            raise
        kept = {row.key: one for row, one in zip(batch, new, strict=True) if isinstance(one, Reply)}
        self.journal.write(kept)
        if kept:
            self._works.add(view.id)
        for row, one in zip(batch, new, strict=True):
            if not isinstance(one, Reply | SampleError):
                raise one
            row.outcome = one

    def _batches(self, waiting: Sequence[_Row]) -> list[list[_Row]]:
        """Requests to one view, of one sampling and of like length together."""
        alike: dict[tuple[int, Sampling], list[_Row]] = {}
        for row in waiting:
            alike.setdefault((id(row.view), row.sampling), []).append(row)
        batches: list[list[_Row]] = []
        for rows in alike.values():
            rows.sort(key=lambda row: _length(row.asked))
            batches += [rows[start : start + self._batch] for start in range(0, len(rows), self._batch)]
        return batches


@dataclass
class _Row:
    """One request on its way through a window.

    Attributes:
        sampling: How to decode.
        asked: The request, or why it cannot be made.
        view: Who is asked.
        key: In the journal.
        outcome: What came of it.
    """

    sampling: Sampling
    asked: Conversation | SampleError
    view: ChatTarget | None = None
    key: str = ""
    outcome: Reply | SampleError | None = None


def _touched(target: ChatTarget, with_image: bool) -> ChatTarget:
    """The model under those of the target's mends that can touch a request with or without an image."""
    acting = [mend for mend in target.mends if mend.touches(with_image)]
    if len(acting) == len(target.mends):
        return target
    view = target.bare
    for mend in acting:
        view = view.with_mend(mend)
    return view


def outcomes(
    target: ChatTarget, batch: Sequence[Conversation], sampling: Sampling, works: bool = False
) -> list[Reply | VlmendError]:
    """A reply to each request or its error; a batch that a foreign exception stops is tried again by halves.

    Errors other than `SampleError`s speak of the target (an endpoint that is down), not of the request. Where nothing
    was answered yet, a harmless request tells whose fault a foreign exception is.

    Args:
        target: Who is asked.
        batch: The requests.
        sampling: How to decode.
        works: The target is known to answer.

    Raises:
        VlmendError: What is wrong with the target.
    """
    foreign: list[Exception] = []

    def asked(some: Sequence[Conversation]) -> list[Reply | VlmendError]:
        try:
            return [*target.generate(some, sampling)]
        except BatchProblem as problem:
            return [one if isinstance(one, Reply | VlmendError) else _own(one) for one in problem.outcomes]

    def alone(one: Conversation, problem: Exception) -> Reply | VlmendError:
        if isinstance(problem, SampleError):
            return problem
        foreign.append(problem)  # whatever a processor or a model raises about one request
        return _own(problem)

    found = by_halves(batch, asked, lambda p: isinstance(p, SampleError) or not isinstance(p, VlmendError), alone)
    if foreign and not works and not any(isinstance(one, Reply) for one in found):
        try:
            target.generate([HARMLESS], sampling)
        except Exception:
            raise foreign[0] from None
    return found


def _own(problem: object) -> SampleError:
    text = without_addresses(" ".join(f"{type(problem).__name__}: {problem}".split()))
    return SampleError(text, "The others of its batch are answered; look at this request.")


def _built(request: Request) -> Conversation | SampleError:
    """The request, if its pictures can be read."""
    try:
        conversation = request.build()
        for image in conversation.images:
            image.decode()
    except SampleError as problem:
        return problem
    return conversation


def _length(asked: Conversation | SampleError) -> int:
    return sum(len(turn.text) for turn in asked.turns) if isinstance(asked, Conversation) else 0
