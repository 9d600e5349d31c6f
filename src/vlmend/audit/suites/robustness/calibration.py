"""robustness/calibration: is a dual encoder as sure as it is right, and still so when pictures shift?

Each picture is named among all names of the data. Confidence is the probability of the name chosen. Pictures under a
shift are held against the same pictures without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from vlmend.audit.calibrating import calibration_rows, calibration_values, reliability_curves
from vlmend.audit.means import JUDGE
from vlmend.audit.shifted import names_of, shifted_samples
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.pictures.galleries import PHOTO

__all__ = ["SUITE", "Calibration"]


class Calibration(SampleSuite[DualTarget]):
    """ECE and adaptive ECE beside proper scores, by shift, and what each shift changes on the same pictures."""

    name: ClassVar[str] = "robustness/calibration"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "whether confidence means accuracy, also on shifted pictures (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return len(names_of(data)) > 1

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        return shifted_samples(subject, data, limit, split, lambda rows, names: _values(subject, rows, names))

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return calibration_rows(self, samples, seed, judge=JUDGE)

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return reliability_curves(self.name, samples)


def _values(target: DualTarget, rows: Sequence[Example], names: Sequence[str]) -> list[dict[str, float]]:
    images = [row.image for row in rows if row.image is not None]
    logits = target.logits(images, [PHOTO.format(name) for name in names])
    return calibration_values(logits, torch.tensor([names.index(row.answers[0]) for row in rows]), target.pair_kind)


SUITE = Calibration()
