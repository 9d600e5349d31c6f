"""What a verb shows on standard error while it works: each step, how far it is, the time left; and its orderly stop.

On a terminal that is a bar for each step. Elsewhere (a log, a pipe) it is a line when a step begins and one every half
minute. The first Ctrl-C during a step of several batches lets the batch end, since what it gives is kept, unless all
that is done is to wait for an endpoint (`core.waiting`); the second one, and any at another time, stops at once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from vlmend.core.waiting import is_waiting
from vlmend.printing import duration, err_console

__all__ = ["progress_bars"]

EVERY_S = 30.0
"""Between two lines about one step where nobody looks."""

Report = Callable[[str, int, int], None]


@contextmanager
def progress_bars(loading: str = "") -> Generator[Report]:
    """Show steps as they are reported, by (step, done, total); a total of 0 is one that is not known yet.

    Args:
        loading: What is being loaded, shown before anything else is imported.
    """
    with _shown(loading) as show, _stoppable() as stop:

        def report(step: str, done: int, total: int) -> None:
            stop.check(done, total)
            show(step, done, total)

        if loading:
            report("load", 0, 1)
        yield report


class _Show(Protocol):
    def __call__(self, step: str, done: int, total: int) -> None: ...


@contextmanager
def _shown(loading: str) -> Generator[_Show]:
    if not err_console.is_terminal:
        yield _Lines(loading)
        return
    columns = (TextColumn("{task.description:>8}", markup=False), BarColumn(), MofNCompleteColumn(), _Left())
    with Progress(*columns, console=err_console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(_named(step, loading), total=total or None)
            bars.update(tasks[step], completed=done, total=total or None)

        yield show


class _Left(ProgressColumn):
    """The time that is left, in words."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if task.finished or left is None else f"{duration(left)} left")


class _Lines:
    """Steps as lines."""

    def __init__(self, loading: str) -> None:
        self._loading = loading
        self._began: dict[str, tuple[float, int]] = {}
        self._last = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step not in self._began:
            self._began[step] = now, done
            self._print(f"{_named(step, self._loading)}" + (f", {total} in all" if total > 1 else ""), now)
        elif 0 < done < total and now - self._last > EVERY_S:
            began, first = self._began[step]
            left = (now - began) * (total - done) / (done - first) if done > first else None
            told = "" if left is None else f", {duration(left)} left"
            self._print(f"{_named(step, self._loading)}: {done} of {total}{told}", now)

    def _print(self, line: str, now: float) -> None:
        self._last = now
        err_console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Stop:
    """Whether the user asked to stop, and whether a batch is on its way that can still be kept."""

    def __init__(self) -> None:
        self._asked = False
        self._batches = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What Ctrl-C does.

        Raises:
            KeyboardInterrupt: There is no batch to wait for, or the user does not want to.
        """
        if self._asked or not self._batches:
            raise KeyboardInterrupt
        self._asked = True
        waits = is_waiting()
        told = "stopping; what was answered is kept" if waits else "stopping after this batch; Ctrl-C again to stop now"
        err_console.print(told, highlight=False, soft_wrap=True)
        if waits:
            raise KeyboardInterrupt

    def check(self, done: int, total: int) -> None:
        """A step is so far.

        Raises:
            KeyboardInterrupt: The user asked to stop, and a batch has ended.
        """
        if self._asked:
            raise KeyboardInterrupt
        self._batches = total > 1 and done < total


@contextmanager
def _stoppable() -> Generator[_Stop]:
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _named(step: str, loading: str) -> str:
    """A step in words; judges and the steps of methods have names of their own."""
    words = {"load": f"loading {loading}".rstrip(), "ask": "asking", "measure": "measuring"}
    return words.get(step, step)
