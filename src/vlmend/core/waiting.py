"""Where Ctrl-C may cut in at once: while nothing of ours works and whoever waits keeps what has come."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["is_waiting", "waiting"]

_under_way: list[None] = []


@contextmanager
def waiting() -> Generator[None]:
    """Wait for others, such as an endpoint: a `KeyboardInterrupt` in here loses nothing that has come.

    Signals reach the main thread alone, so other threads are not noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _under_way.append(None)
    try:
        yield
    finally:
        _under_way.pop()


def is_waiting() -> bool:
    """Whether the main thread waits so now."""
    return bool(_under_way)
