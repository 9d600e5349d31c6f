"""How bad a number is, on one scale for every measure, so that a reader is told the worst first.

Terminal, report and gate take their first sentence from here.
"""

from __future__ import annotations

import math

from vlmend.core.measures import Measure, Scorecard, find_measure

__all__ = ["leading", "severity"]


def severity(row: Measure, card: Scorecard) -> float:
    """How far a value is on the way from that of a faultless model (0) to the worst one that there is (1).

    Faultless is the row of its run that it is held against; without one it is what chance gives where lower is better
    (or 0, where that is no question), and the largest value where higher is better. Worst is the largest value where
    lower is better, and what chance gives (or 0) where higher is better. NaN where neither direction is better, where
    nothing was scored, or where an end is not known.

    Args:
        row: A number of a run.
        card: The scorecard that it is in.
    """
    if not row.n or row.better == "neither":
        return math.nan
    other = find_measure(card, row.suite, row.name, row.against) if row.against else None
    chance = 0.0 if math.isnan(row.floor) else row.floor
    good, bad = (chance, row.largest) if row.better == "lower" else (row.largest, chance)
    if other is not None and other.n:
        good = other.value
    if math.isnan(good + bad):
        return math.nan
    if good == bad:
        return 0.0
    return min(1.0, max(0.0, (row.value - good) / (bad - good)))


def leading(card: Scorecard, *others: Scorecard) -> list[Measure]:
    """The rows of the first sentence: of each axis the suite that is worst in any of the runs, the worst axis first.

    Within a suite, rows that are held against another come before those that stand by themselves, and worse ones before
    better ones. A suite of which nothing is known comes last.

    Args:
        card: Whose rows they are.
        others: Scorecards of the runs that are told beside it.
    """
    worst: dict[str, float] = {}
    for run in (card, *others):
        for row in run:
            if row.says:
                worst[row.suite] = max(worst.get(row.suite, -1.0), _known(severity(row, run)))
    told = [row for row in card if row.says]
    chosen: dict[str, str] = {}
    for row in sorted(told, key=lambda row: -worst[row.suite]):
        chosen.setdefault(row.axis, row.suite)
    return sorted(
        (row for row in told if row.suite in chosen.values()),
        key=lambda row: (-worst[row.suite], row.suite, not row.against, -_known(severity(row, card))),
    )


def _known(found: float) -> float:
    return -1.0 if math.isnan(found) else found
