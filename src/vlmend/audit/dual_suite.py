"""What a suite of a dual encoder is: samples with numbers, and measures over all of them.

There is no dialogue here, and so no judge: a suite embeds pictures and texts and does arithmetic. `dual_run` keeps
the samples, so that the measures can be told again without the model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmend.core.contracts import DualTarget
from vlmend.core.examples import Dataset
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.resampling import cluster_bootstrap
from vlmend.core.splits import Split

__all__ = ["FLOOR", "JUDGE", "DualSuite", "Sample"]

JUDGE = "embeddings"
"""What the scorecard names in the place of a judge."""

FLOOR = "_floor"
"""A value of that ending is what chance alone would give for the value of the name before it."""


@dataclass(frozen=True)
class Sample:
    """One query or picture and the numbers that were found for it.

    Attributes:
        id: Unique within the suite; before and after are paired by it.
        group: What it counts for.
        cluster: What it is resampled with: samples of one cluster depend on each other.
        text: The query, or the name of what the picture shows.
        values: Its numbers; empty where it could not be measured.
    """

    id: str
    group: str
    cluster: str
    text: str
    values: Mapping[str, float]


class DualSuite(ABC):
    """Samples and measures. `name` is `axis/name`."""

    name: ClassVar[str]
    axis: ClassVar[Axis]
    about: ClassVar[str]
    works_on: ClassVar[Literal["dual"]] = "dual"

    @abstractmethod
    def samples(
        self, target: DualTarget, data: Dataset | None, limit: int | None, split: Split = "held_out"
    ) -> list[Sample]:
        """Measure the user's data, or a split of the built-in data where there is none.

        Args:
            target: What to audit, its mends already applied.
            data: In the form that the suite's page describes.
            limit: Queries or pictures of each kind, or all.
            split: Of the built-in data.

        Raises:
            BadData: The data holds nothing that this suite can measure.
        """

    @abstractmethod
    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        """The rows of the scorecard; `seed` is that of resampling."""

    def applies(self, data: Dataset) -> bool:
        """Whether the user's data holds anything for this suite; an axis leaves out what does not."""
        return True

    def mean(
        self, name: str, group: str, samples: Sequence[Sample], better: Better, unit: Unit, seed: int
    ) -> Measure:  # fmt: skip
        """The mean of a value over a group's samples, with its floor; the interval resamples clusters."""
        of_group = [sample for sample in samples if sample.group == group]
        scored = [sample for sample in of_group if name in sample.values]
        interval = cluster_bootstrap([s.values[name] for s in scored], [s.cluster for s in scored], seed=seed)
        floors = [s.values[name + FLOOR] for s in scored if name + FLOOR in s.values]
        return Measure(
            self.axis, self.name, name, group, *interval, len(scored), sum(not s.values for s in of_group), better,
            judge=JUDGE, unit=unit, floor=sum(floors) / len(floors) if floors else math.nan,
        )  # fmt: skip
