"""fairness/attribution: does a text find a person by the person, and alike for every group?

Heat maps by integrated gradients (Sundararajan et al., ICML 2017, arXiv 1703.01365) of the logit of picture and text,
held to what is known of the picture, and to checks without which a map says nothing (`audit.attributed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmend.audit.attributed import attributed_samples, attribution_curves, attribution_rows, placed_rows, some_people
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualWeights, Kind
from vlmend.pictures.regions import people_in_place

__all__ = ["SUITE", "Attribution"]

COUNT = 60
"""Built-in people: some seconds on two cores."""


class Attribution(SampleSuite[DualWeights]):
    """Share of what speaks for a text that lies on the person, by group, beside area, centre and shuffled weights."""

    name: ClassVar[str] = "fairness/attribution"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "weights"
    about: ClassVar[str] = "whether texts look at the person, alike for every group (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return bool(placed_rows(data))

    def uses(self, data: Dataset) -> list[Example]:
        return placed_rows(data)

    def sample_data(self) -> Dataset:
        return some_people(people_in_place("held_out"), 2)

    def samples(
        self, subject: DualWeights, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = some_people(people_in_place(split), COUNT) if data is None else data
        return attributed_samples(subject, given, limit, seed)

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return attribution_rows(self, samples, seed)

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return attribution_curves(self.name, samples)


SUITE = Attribution()
