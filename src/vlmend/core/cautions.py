"""What a reader must know before the numbers of a scorecard: terminal, report and gate say it first."""

from __future__ import annotations

from vlmend.core.measures import Measure, Scorecard

__all__ = ["ALIKE", "cautions"]

ALIKE = 0.90
"""Judges that count a smaller share of the replies alike tell different things; people must say which is right."""


def cautions(card: Scorecard) -> list[str]:
    """One sentence for each suite whose judges part, by the row on which they part most."""
    parted: dict[str, tuple[Measure, Measure]] = {}
    for row in sorted((row for row in card if row.agreement < ALIKE), key=lambda row: row.agreement):
        other = next((o for o in card.others if (o.suite, o.name, o.group) == (row.suite, row.name, row.group)), None)
        if other is not None:
            parted.setdefault(row.suite, (row, other))
    return [_parted(row, other) for row, other in parted.values()]


def _parted(row: Measure, other: Measure) -> str:
    values = f"{row.written(row.value)} by {row.judge} and {other.written(other.value)} by {other.judge}"
    return (
        f"{row.suite}: the {row.name.replace('_', ' ')} ({row.group}) is {values}, which count {row.agreement:.0%} of "
        "the replies alike. Label some by hand: vlmend label RUN."
    )
