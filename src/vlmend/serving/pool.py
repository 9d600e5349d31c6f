"""Replicas of one model behind one server: who is asked, and what becomes of a request whose replica dies.

Ray is not known here: a `Fleet` carries a request to some replica and brings back what it says (`replicas`). All of it
runs on the server's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from vlmend.core.conversation import Conversation, Sampling
from vlmend.serving.jobs import Answer, Job, Piece
from vlmend.serving.limits import Refusal

__all__ = ["DEATHS", "Asked", "Fleet", "Heard", "Lost", "Pool"]

DEATHS = 3
"""How many replicas one request may see die; it may be what they die of."""
PAUSE_S = 0.2
"""Before a request is asked again, times how often it was."""


@dataclass(frozen=True)
class Asked:
    """A request as it goes to a replica."""

    name: str
    conversation: Conversation
    sampling: Sampling
    stream: bool


@dataclass(frozen=True)
class Heard:
    """What a replica says of a request.

    Attributes:
        replica: Which.
        told: The reply so far or a whole one, or why there is none; None when it has taken the request.
        first_s: From when it took it to the first token.
    """

    replica: str
    told: Piece | Answer | Refusal | None = None
    first_s: float | None = None


class Lost(Exception):
    """The replica that had a request died."""


class Closing(Lost):
    """It was on its way out, and has not begun."""


class Fleet(Protocol):
    """Replicas, wherever they are."""

    def ask(self, asked: Asked) -> AsyncGenerator[Heard, None]:
        """What some replica says of a request, in order; closed, the replica lets the request go.

        Raises:
            Lost: The replica died.
        """
        ...

    def alive(self) -> int:
        """How many answer now."""
        ...

    def close(self) -> None:
        """End them."""
        ...


class Pool:
    """An engine of many replicas.

    Args:
        fleet: The replicas.
        most: Requests that may wait or be under way in all of them together; one more is refused.
    """

    def __init__(self, fleet: Fleet, most: int) -> None:
        self._fleet, self._most, self._closing = fleet, most, False
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken: set[Job] = set()

    @property
    def held(self) -> int:
        """Requests waiting and under way."""
        return len(self._tasks)

    @property
    def running(self) -> int:
        """Requests that a replica has."""
        return len(self._taken)

    @property
    def health(self) -> Mapping[str, Any]:
        alive = self._fleet.alive()
        status = "closing" if self._closing else "ok" if alive else "no replica answers"
        return {"status": status, "replicas": alive}

    @property
    def replicas(self) -> Callable[[], int]:
        return self._fleet.alive

    def submit(self, job: Job) -> None:
        """Hand over a request, from the server's event loop.

        Raises:
            Refusal: Too many are held (429), or the server is closing (503).
        """
        if self._closing:
            raise Refusal(503, "The server is closing.", "closing")
        if self.held >= self._most:
            raise Refusal(429, f"{self.held} requests are held already: ask again later.", "busy")
        task = asyncio.get_running_loop().create_task(self._answer(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        job.on_leave = task.cancel

    def close(self) -> None:
        """End the replicas; call it when the event loop has ended, or from it."""
        self._closing = True
        for task in self._tasks:
            if not task.get_loop().is_closed():
                task.cancel()
        self._fleet.close()

    async def _answer(self, job: Job) -> None:
        try:
            outcome = await self._outcome(job)
        except Exception as problem:  # a bug of ours: nobody waits for ever
            outcome = problem
        finally:
            self._taken.discard(job)
        job.on_leave = lambda: None
        self._tasks.discard(asyncio.current_task())  # type: ignore[arg-type]
        job.tell(outcome)

    async def _outcome(self, job: Job) -> Answer | Exception:
        """The reply, or why there is none; asked again where a replica died before a word of it was passed on."""
        deaths = 0
        while True:
            try:
                return await self._heard(job)
            except Lost as problem:
                self._taken.discard(job)
                if job.first_s is not None:
                    said = "The replica that wrote this reply died in the middle of it: ask again."
                    return Refusal(503, said, "replica_died")
                deaths += not isinstance(problem, Closing)  # which says nothing of the request
                if deaths > DEATHS:
                    said = f"{deaths} replicas died at this request ({problem})."
                    return Refusal(503, said, "replica_died")
                job.again += 1
                await asyncio.sleep(PAUSE_S * job.again)

    async def _heard(self, job: Job) -> Answer | Refusal:
        """One replica's outcome.

        Raises:
            Lost: It died, or was closing.
        """
        asked = Asked(job.name, job.conversation, job.sampling, job.stream)
        async with aclosing(self._fleet.ask(asked)) as heard:
            taken = time.monotonic() - job.arrived
            async for one in heard:
                match one.told:
                    case None:
                        job.replica, taken = one.replica, time.monotonic() - job.arrived
                        self._taken.add(job)
                    case Piece():
                        job.first_s = job.first_s or time.monotonic() - job.arrived
                        job.tell(one.told)
                    case Answer():
                        job.first_s = job.first_s or taken + (one.first_s or 0.0)
                        return one.told
                    case Refusal():
                        if one.told.code == "closing":
                            raise Closing("it was closing")
                        return one.told
        raise Lost("it ended without a reply")
