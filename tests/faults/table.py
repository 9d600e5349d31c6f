"""What a harness counts, and the table that it prints: a tool that holds up has zeros in all but the first column."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import FrameType
from typing import TypeVar

from vlmend.errors import VlmendError

Given = TypeVar("Given")

LONGEST_S = 30.0
"""An attempt that takes longer hangs."""


class Hangs(BaseException):
    """An attempt took too long; no `except Exception` stops it."""


@contextmanager
def bounded(seconds: float = LONGEST_S) -> Generator[None]:
    """
    Raises:
        Hangs: The block took longer.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Tally:
    """What came of one kind of attempts.

    Attributes:
        what: The kind.
        attempts: How many.
        lost: Samples that were there and are not.
        asked_twice: Requests that went out though their reply was there.
        tracebacks: Errors that are no `VlmendError`: a user would see a bug of ours.
        hangs: Attempts that took longer than they may.
        wrong: Numbers or replies that are not what they would be undisturbed, without a word.
        seen: The first few failures, for whoever mends them.
    """

    what: str
    attempts: int = 0
    lost: int = 0
    asked_twice: int = 0
    tracebacks: int = 0
    hangs: int = 0
    wrong: int = 0
    seen: list[str] = field(default_factory=list)

    def tried(self, attempt: Callable[[], Given], told: str) -> Given | None:
        """What an attempt gives; None where it ends in an error, which is counted unless it is one of ours."""
        self.attempts += 1
        try:
            with bounded():
                return attempt()
        except VlmendError:
            return None
        except Hangs:
            self.hangs += 1
            self.note(f"{told}: hangs")
            return None
        except Exception as problem:
            self.tracebacks += 1
            self.note(f"{told}: {type(problem).__name__}: {problem}")
            return None

    def note(self, text: str) -> None:
        if len(self.seen) < 20:
            self.seen.append(text[:300])

    @property
    def clean(self) -> bool:
        return not any((self.lost, self.asked_twice, self.tracebacks, self.hangs, self.wrong))


COLUMNS = [one.name for one in fields(Tally)][1:-1]


def table(rows: Iterable[Tally]) -> str:
    """The rows as Markdown."""
    lines = [f"| what | {' | '.join(COLUMNS).replace('_', ' ')} |", "|---|" + "---|" * len(COLUMNS)]
    lines += [f"| {row.what} | {' | '.join(str(getattr(row, name)) for name in COLUMNS)} |" for row in rows]
    return "\n".join(lines)


def held_up(tally: Tally) -> None:
    """
    Raises:
        AssertionError: Something else than the attempts was counted.
    """
    assert tally.clean, "\n".join([str(tally), *tally.seen])
