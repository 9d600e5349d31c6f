"""The mean of a value over the samples of a `SampleSuite`, as a scorecard row with its floor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlmend.core.contracts import Sample
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.resampling import mean_interval

__all__ = ["FLOOR", "JUDGE", "mean_row"]

JUDGE = "embeddings"
"""What the scorecard of a dual encoder names in the place of a judge."""

FLOOR = "_floor"
"""A value of that ending is what chance alone would give for the value of the name before it."""


def mean_row(
    axis: Axis, suite: str, name: str, group: str, samples: Sequence[Sample], better: Better, unit: Unit, seed: int, *,
    judge: str = JUDGE, says: str = "", ceiling: float = math.nan,
) -> Measure:  # fmt: skip
    """The mean of a value over a group's samples; the interval resamples clusters."""
    of_group = [sample for sample in samples if sample.group == group]
    scored = [sample for sample in of_group if name in sample.values]
    interval = mean_interval([s.values[name] for s in scored], [s.cluster for s in scored], seed=seed)
    floors = [s.values[name + FLOOR] for s in scored if name + FLOOR in s.values]
    return Measure(
        axis, suite, name, group, *interval, len(scored), sum(not s.values for s in of_group), better,
        judge=judge, unit=unit, floor=sum(floors) / len(floors) if floors else math.nan, compared="mean",
        says=says, ceiling=ceiling,
    )  # fmt: skip
