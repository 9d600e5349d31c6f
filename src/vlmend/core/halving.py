"""A batch that fails is tried again by halves, so that what is wrong ends with the items that it is wrong with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["by_halves"]

T = TypeVar("T")
R = TypeVar("R")


def by_halves(
    items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]], blamed: Callable[[Exception], bool],
    alone: Callable[[T, Exception], R],
) -> list[R]:  # fmt: skip
    """What comes of each item, in order.

    Args:
        items: The batch.
        work: Does it, a result for each item; raises where one of them cannot be done.
        blamed: Whether an exception may be the fault of an item; others are raised as they are.
        alone: The result of an item that failed by itself.
    """
    try:
        return [*work(items)]
    except Exception as problem:
        if not items or not blamed(problem):
            raise
        if len(items) == 1:
            return [alone(items[0], problem)]
    middle = len(items) // 2
    return [part for half in (items[:middle], items[middle:]) for part in by_halves(half, work, blamed, alone)]
