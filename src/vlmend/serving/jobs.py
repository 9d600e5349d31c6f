"""Requests on their way to a model, what comes back of them, and what a server asks of whatever answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vlmend.core.conversation import Conversation, Reply, Sampling

if TYPE_CHECKING:  # a front that only passes requests on needs no model library
    from vlmend.models.decoding.live import LiveRequest

__all__ = ["Answer", "Engine", "Job", "Piece", "Told"]


@dataclass(frozen=True)
class Piece:
    """A reply so far."""

    text: str


@dataclass(frozen=True)
class Answer:
    """A whole reply, and what it says of the mends that made it (`proof.proof_of`)."""

    reply: Reply
    proof: Mapping[str, Any]


Told = Piece | Answer | Exception


@dataclass(eq=False)
class Job:
    """A request and who waits for it.

    Attributes:
        name: Of the view that is asked.
        conversation, sampling: What is asked.
        stream: Tell the reply so far at every token.
        tell: Called with each `Piece`, and at last with a reply or an error, from any thread.
        arrived: When it came.
        gone: Set where nobody waits any more: it leaves at the next token.
        first_s: From its arrival to its first token; None before.
        replica: Which replica has it; empty where there is one model.
        again: How often it was asked again since its replica died.
        on_leave: Called by `leave`.
        request: As its worker reads it.
    """

    name: str
    conversation: Conversation
    sampling: Sampling
    stream: bool
    tell: Callable[[Told], None]
    arrived: float = field(default_factory=time.monotonic)
    gone: bool = False
    first_s: float | None = None
    replica: str = ""
    again: int = 0
    on_leave: Callable[[], object] = lambda: None
    request: LiveRequest | None = None

    def leave(self) -> None:
        """Nobody waits any more, or the reply is there."""
        self.gone = True
        self.on_leave()


class Engine(Protocol):
    """What answers: a model (`worker.Worker`), or replicas of one (`pool.Pool`)."""

    @property
    def held(self) -> int:
        """Requests waiting and under way."""
        ...

    @property
    def running(self) -> int:
        """Requests whose replies are being written."""
        ...

    @property
    def health(self) -> Mapping[str, Any]:
        """`status`, which is `ok` where it answers, and more that it knows."""
        ...

    @property
    def replicas(self) -> Callable[[], int] | None:
        """Tells how many replicas answer; None where there is one model."""
        ...

    def submit(self, job: Job) -> None:
        """Hand over a request.

        Raises:
            Refusal: Too many are held (429), or it is closed (503).
        """
        ...

    def close(self) -> None:
        """Stop; who still waits is told."""
        ...
