"""One queue and one worker per loaded model: single requests in, batches through the model.

Requests wait at most `WAIT_S` for company, wake on arrival, and share a batch with requests of the same
sampling to the same view, or to other views of the same model where their mends allow it (`VLM.mixes`). What
a batch holds at once, and in which order, the model decides (`decoding`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.targets import ChatTarget
from vlmend.errors import BatchProblem, VlmendError
from vlmend.models.vlm import VLM, answer_together

__all__ = ["WAIT_S", "Batcher"]

WAIT_S = 0.02


@dataclass(eq=False)
class _Job:
    target: ChatTarget
    conversation: Conversation
    sampling: Sampling
    future: Future[Reply] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def length(self) -> int:
        return sum(len(turn.text) for turn in self.conversation.turns)


class Batcher:
    """Batches requests to the views of one loaded model.

    Args:
        size: Largest batch, in requests.
        on_batch: Called with the finished (target id, conversation, reply) rows of each batch,
            before their futures are set: the place to write them down.
    """

    def __init__(
        self,
        size: int,
        on_batch: Callable[[list[tuple[str, Conversation, Sampling, Reply]]], None] | None = None,
    ) -> None:
        self._size = size
        self._on_batch = on_batch
        self._queue: queue.Queue[_Job | None] = queue.Queue()
        self._closing = False
        self._worker = threading.Thread(target=self._work, daemon=True, name="vlmend-batcher")
        self._worker.start()

    def submit(self, target: ChatTarget, conversation: Conversation, sampling: Sampling) -> Future[Reply]:
        """Queue one request. A bad image fails its own future here and never reaches a batch."""
        job = _Job(target, conversation, sampling)
        if not self._worker.is_alive():
            raise RuntimeError("this batcher is closed")
        try:
            for image in conversation.images:
                image.decode()
        except Exception as problem:
            job.future.set_exception(problem)
        else:
            self._queue.put(job)
        return job.future

    def close(self) -> None:
        """Stop the worker after the batch under way; what still waits is cancelled."""
        self._closing = True
        self._queue.put(None)
        self._worker.join()

    def _work(self) -> None:
        waiting: list[_Job] = []
        while True:
            self._fill(waiting)
            if self._closing:
                for job in waiting:
                    job.future.cancel()
                return
            if waiting:
                self._run(self._take(waiting))

    def _fill(self, waiting: list[_Job]) -> None:
        """Collect jobs until a batch is full, the oldest has waited for `WAIT_S`, or the batcher closes."""
        while len(waiting) < self._size:
            try:
                job = self._queue.get(timeout=time_left(waiting, time.monotonic()))
            except queue.Empty:
                return
            if job is None:
                return
            waiting.append(job)

    def _take(self, waiting: list[_Job]) -> list[_Job]:
        """The next batch: the oldest job's kind, its nearest lengths first."""
        first = waiting[0]
        same = [j for j in waiting if j.sampling == first.sampling and _may_share(first.target, j.target)]
        batch = sorted(same, key=lambda job: abs(job.length - first.length))[: self._size]
        waiting[:] = [job for job in waiting if job not in batch]
        return batch

    def _run(self, jobs: list[_Job]) -> None:
        batch = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            found = list(zip(batch, _outcomes(batch), strict=True))
            rows = [(j.target.id, j.conversation, j.sampling, one) for j, one in found if isinstance(one, Reply)]
            if self._on_batch is not None and rows:
                self._on_batch(rows)
        except BaseException as problem:
            for job in batch:
                job.future.set_exception(problem)
        else:
            for job, one in found:
                if isinstance(one, Reply):
                    job.future.set_result(one)
                else:
                    job.future.set_exception(one)


def time_left(waiting: Sequence[_Job], now: float) -> float | None:
    """Seconds that may go by before a batch begins; None where nobody waits."""
    return max(0.0, waiting[0].arrived + WAIT_S - now) if waiting else None


def _may_share(one: ChatTarget, other: ChatTarget) -> bool:
    """Whether requests to these views may share a batch; told by the views themselves, no mend is hashed for it."""
    if one is other:
        return True
    if isinstance(one, VLM) and isinstance(other, VLM):
        return one.model is other.model and one.mixes and other.mixes
    return one.id == other.id


def _outcomes(batch: list[_Job]) -> list[Reply | VlmendError]:
    """A reply for each job; or, where the target says that only some have none, their own errors."""
    try:
        return [*_answers(batch)]
    except BatchProblem as problem:
        return [one for one in problem.outcomes if isinstance(one, Reply | VlmendError)]


def _answers(batch: list[_Job]) -> list[Reply]:
    conversations, sampling = [job.conversation for job in batch], batch[0].sampling
    views = [job.target for job in batch if isinstance(job.target, VLM)]
    if any(job.target is not batch[0].target for job in batch) and len(views) == len(batch):
        return answer_together(views, conversations, sampling)
    return batch[0].target.generate(conversations, sampling)
