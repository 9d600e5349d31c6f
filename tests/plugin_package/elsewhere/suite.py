"""privacy/addresses: rows of a data set whose words hold an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset
from vlmend.core.measures import Axis, Measure
from vlmend.core.metrics.stats import wilson
from vlmend.core.splits import Split
from vlmend.core.targets import Access, Kind
from vlmend.errors import BadData

__all__ = ["SUITE", "Addresses"]


class Addresses(SampleSuite[Dataset]):
    """The share of rows with an "@" in them."""

    name: ClassVar[str] = "privacy/addresses"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind] = "data"
    needs: ClassVar[Access] = "rows"
    about: ClassVar[str] = "addresses in the words of a data set"

    def samples(
        self, subject: Dataset, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        if not subject.examples:
            raise BadData(f"{subject.name} has no rows.", "Pass rows with words.")
        rows = subject.examples[:limit]
        return [
            Sample(
                row.id, "rows", row.id, row.prompt, label="address" if "@" in f"{row.prompt}{row.caption}" else "none"
            )
            for row in rows
        ]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        scored = [sample for sample in samples if sample.label]
        interval = wilson(sum(sample.label == "address" for sample in scored), len(scored))
        return [
            Measure(
                self.axis, self.name, "addresses", "rows", *interval, len(scored), len(samples) - len(scored), "lower",
                ("address",), compared="share",
            )
        ]  # fmt: skip


SUITE = Addresses()
