"""What a replica does with a request: one model and its worker, asked by a server elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from vlmend.errors import VlmendError
from vlmend.serving.jobs import Job, Piece, Told
from vlmend.serving.limits import Refusal, refusal_of
from vlmend.serving.logs import Log
from vlmend.serving.pool import Asked, Heard
from vlmend.serving.proof import Served, Shown
from vlmend.serving.worker import Worker

__all__ = ["Answering"]


class Answering:
    """One model and its worker.

    Args:
        tag: Of the replica.
        served: Its views, by name.
        most: Requests that it may hold.
    """

    def __init__(self, tag: str, served: Mapping[str, Served], most: int) -> None:
        self._tag, self._served, self._log = tag, served, Log()
        self._worker = Worker(served, most)

    async def shown(self) -> list[Shown]:
        """What is served."""
        return [one.shown for one in self._served.values()]

    async def ask(self, asked: Asked) -> AsyncGenerator[Heard, None]:
        """What becomes of a request; cancelled, its row is freed."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[Told]()

        def tell(one: Told) -> None:
            loop.call_soon_threadsafe(told.put_nowait, one)

        job = Job(asked.name, asked.conversation, asked.sampling, asked.stream, tell)
        yield Heard(self._tag)
        try:
            self._worker.submit(job)
        except Refusal as problem:
            yield Heard(self._tag, problem)
            return
        try:
            while True:
                one = await told.get()
                while isinstance(one, Piece) and not told.empty():  # the newest holds all before it
                    one = told.get_nowait()
                yield Heard(self._tag, self._refused(one) if isinstance(one, Exception) else one, job.first_s)
                if not isinstance(one, Piece):
                    return
        finally:
            job.leave()

    def check_health(self) -> None:
        """Asked by Ray Serve, which replaces a replica whose worker has ended."""
        if not self._worker.alive:
            raise RuntimeError("the worker has ended")

    def close(self) -> None:
        """Stop; who still waits is told."""
        self._worker.close()

    def _refused(self, problem: Exception) -> Refusal:
        if not isinstance(problem, Refusal | VlmendError):
            self._log.failed(problem)
        return refusal_of(problem)
