"""What the server counts, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server; the label `model` takes the served names only.

    Args:
        held: How many requests are waiting and under way now.
        running: How many replies are being written now, row by row.
        replicas: How many replicas answer now; what is told by replica is left out where there are none.
    """

    def __init__(
        self, held: Callable[[], int], running: Callable[[], int], replicas: Callable[[], int] | None = None
    ) -> None:
        self._registry = CollectorRegistry()
        where: dict[str, Any] = {"namespace": "vlmend", "registry": self._registry}
        self._requests = Counter("requests", "Requests by answer.", ["model", "status"], **where)
        self._tokens = Counter("tokens", "Tokens read and written.", ["model", "kind"], **where)
        self._fired = Counter("edits_fired", "Edits of states that acted.", ["model"], **where)
        self._seconds = Histogram("request_seconds", "To the last token.", ["model"], buckets=SECONDS, **where)
        self._first = Histogram("first_token_seconds", "To the first token.", ["model"], buckets=SECONDS, **where)
        Gauge("requests_held", "Waiting and under way.", **where).set_function(held)
        Gauge("requests_running", "Replies being written.", **where).set_function(running)
        if replicas is not None:
            Gauge("replicas", "Replicas that answer.", **where).set_function(replicas)
            self._again = Counter("requests_again", "Requests asked again since a replica died.", **where)
            self._by_replica = Counter("replica_replies", "Replies by replica.", ["replica"], **where)
            self._tokens_by_replica = Counter("replica_tokens", "Tokens written by replica.", ["replica"], **where)

    def answered(self, model: str, status: int, again: int = 0) -> None:
        """One request had an answer; 499 stands for a client that left, `again` for replicas that died at it."""
        self._requests.labels(model, str(status)).inc()
        if again:
            self._again.inc(again)

    def wrote(
        self, model: str, prompt: int, new: int, fired: int, seconds: float, first_s: float, replica: str = ""
    ) -> None:
        """One reply: its tokens, how often edits acted, how long it took, and which replica wrote it."""
        if replica:
            self._by_replica.labels(replica).inc()
            self._tokens_by_replica.labels(replica).inc(new)
        self._tokens.labels(model, "prompt").inc(prompt)
        self._tokens.labels(model, "new").inc(new)
        self._fired.labels(model).inc(fired)
        self._seconds.labels(model).observe(seconds)
        self._first.labels(model).observe(first_s)

    def text(self) -> bytes:
        """All of it, as a scraper reads it."""
        return generate_latest(self._registry)
