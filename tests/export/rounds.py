"""How many rounds a question takes: messages that wait for one another, counted from what each party noted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

__all__ = ["CAME", "SENT", "Event", "rounds_of"]

SENT, CAME = "sent", "came"

Event = tuple[str, int, int]
"""SENT or CAME, the party at the other end, and the label that both ends know the message by."""


def rounds_of(parties: Sequence[Sequence[Event]]) -> int:
    """The longest chain of messages each of which was sent after the one before had come.

    A message counts as waiting for all that its sender had read before, needed or not: the count is never too small.
    Messages that nobody noted as sent (of an earlier question) are left out.

    Args:
        parties: What each party noted of one question, in its own order.
    """
    places = {
        (sender, receiver, label): place
        for sender, events in enumerate(parties)
        for place, (way, receiver, label) in enumerate(events)
        if way == SENT
    }

    @cache
    def chain(message: tuple[int, int, int]) -> int:
        sender = message[0]
        read = [
            (other, sender, label) for way, other, label in parties[sender][: places[message]] if way == CAME
        ]  # fmt: skip
        return 1 + max((chain(before) for before in read if before in places), default=0)

    return max((chain(message) for message in places), default=0)
