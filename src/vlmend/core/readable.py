"""Rows that a target can read, how many at once, and why not others; it is asked about no more than must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vlmend.core.examples import Example, spread, undecoded
from vlmend.core.targets import Target, problem_of
from vlmend.errors import FAILURES, VlmendError

__all__ = ["at_once", "each_read", "spread_readable"]

T = TypeVar("T")

MOST = 128
"""Rows at once where a target says how many fit."""


def spread_readable(
    target: Target, rows: Sequence[Example], limit: int | None
) -> tuple[tuple[Example, ...], dict[str, str]]:
    """So many rows that the target can read, evenly spread, and by id why those that were in the way cannot be.

    Only rows that would be taken are put to the target.
    """
    bad: dict[str, str] = {}
    good: set[str] = set()
    while True:
        chosen = spread([row for row in rows if row.id not in bad], limit)
        new = {row.id: problem_of(target, row) for row in chosen if row.id not in good}
        bad |= {name: why for name, why in new.items() if why}
        good |= {name for name, why in new.items() if not why}
        if all(row.id in good for row in chosen):
            return chosen, bad


def at_once(target: Target, rows: Sequence[Example], usual: int) -> int:
    """How many of these rows, from the first on, fit with their gradients where the target tells; else the usual."""
    fitting = getattr(target, "fitting_with_gradients", None)
    return usual if fitting is None else fitting([row.conversation for row in rows[:MOST]])


def each_read(
    target: Target, rows: Sequence[Example], read: Callable[[Sequence[Example]], Sequence[T]]
) -> tuple[dict[str, T], dict[str, str]]:
    """What is read of each row, by id, and why others cannot be read.

    Only where all rows together fail is the target asked about each.

    Args:
        target: It is asked.
        rows: Of different ids.
        read: Reads some rows, one or more.

    Raises:
        VlmendError: All of them fail, and none does alone; or those that the target can read fail.
    """
    bad = {row.id: why for row in rows if (why := undecoded(row))}
    good = [row for row in rows if row.id not in bad]
    try:
        return _by_id(good, read), bad
    except (VlmendError, *FAILURES):
        alone = {row.id: why for row in good if (why := problem_of(target, row))}
        if not alone:
            raise
    return _by_id([row for row in good if row.id not in alone], read), bad | alone


def _by_id(rows: Sequence[Example], read: Callable[[Sequence[Example]], Sequence[T]]) -> dict[str, T]:
    return dict(zip([row.id for row in rows], read(rows), strict=True)) if rows else {}
