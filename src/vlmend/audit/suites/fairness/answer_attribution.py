"""fairness/answer_attribution: does a reply about a person look at the person, and alike for every group?

As `fairness/attribution`, of models that answer: what is explained is the likelihood of a reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmend.audit.attributed import attributed_samples, attribution_curves, attribution_rows, placed_rows, some_people
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, ChatGradients, Kind
from vlmend.pictures.regions import people_in_place

__all__ = ["SUITE", "AnswerAttribution"]

COUNT = 4
"""Built-in people: gradients through a decoder take half a minute each on one core for 135 million weights."""


class AnswerAttribution(SampleSuite[ChatGradients]):
    """Share of what speaks for a reply that lies on the person, by group, beside area, centre and shuffled weights."""

    name: ClassVar[str] = "fairness/answer_attribution"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "chat"
    needs: ClassVar[Access] = "weights"
    about: ClassVar[str] = "whether replies look at the person, alike for every group (chat models)"

    def applies(self, data: Dataset) -> bool:
        return bool(placed_rows(data))

    def uses(self, data: Dataset) -> list[Example]:
        return placed_rows(data)

    def sample_data(self) -> Dataset:
        return some_people(people_in_place("held_out"), 2)

    def samples(
        self, subject: ChatGradients, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = some_people(people_in_place(split), COUNT) if data is None else data
        return attributed_samples(subject, given, limit, seed)

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return attribution_rows(self, samples, seed)

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return attribution_curves(self.name, samples)


SUITE = AnswerAttribution()
