"""robustness/calibration: is a dual encoder as sure as it is right, and still so when pictures shift?

Each picture is named among all names of the data. Confidence is the probability of the name chosen. Pictures under a
shift are held against the same pictures without it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import ClassVar

import torch

from vlmend.audit.means import FLOOR, JUDGE, mean_row
from vlmend.audit.shifted import CLEAN, names_of, shifted_samples
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.calibration import as_probabilities, brier, nll
from vlmend.core.metrics.reliability import Outcomes, ece, ece_change, ece_floor, equal_counts, equal_widths
from vlmend.core.metrics.resampling import paired_bootstrap
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.pictures.galleries import PHOTO

__all__ = ["SUITE", "Calibration"]

NOTHING = Interval(math.nan, math.nan, math.nan)

MEANS: dict[str, tuple[Better, Unit]] = {
    "accuracy": ("higher", "share"), "overconfidence": ("neither", "number"), "brier": ("lower", "number"),
    "nll": ("lower", "number"),
}  # fmt: skip

SAYS = "is {value} off between how sure and how right it is (ECE)"


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
        groups = list(dict.fromkeys(sample.group for sample in samples))
        found = [row for group in groups for row in self._of_group(group, samples, seed)]
        changes = [
            row for group in groups if group != CLEAN and CLEAN in groups for row in self._changes(group, samples, seed)
        ]
        return [*found, *changes]

    def _of_group(self, group: str, samples: Sequence[Sample], seed: int) -> list[Measure]:
        scored = [s for s in samples if s.group == group and s.values]
        unscored = sum(s.group == group and not s.values for s in samples)
        sure = [s.values["confidence"] for s in scored]
        found: list[Measure] = []
        for name, edges in (("ece", equal_widths()), ("adaptive_ece", equal_counts(sure) if sure else equal_widths())):
            error = ece(_outcomes(scored), edges, seed=seed) if scored else NOTHING
            floor = ece_floor(sure, edges, seed=seed) if scored else math.nan
            says = SAYS if (name, group) == ("ece", CLEAN) else ""
            found.append(self._row(name, group, error, len(scored), unscored, "lower", floor, says))
        return [
            *found,
            *(
                mean_row(self.axis, self.name, name, group, samples, better, unit, seed)
                for name, (better, unit) in MEANS.items()
            ),
        ]

    def _changes(self, group: str, samples: Sequence[Sample], seed: int) -> list[Measure]:
        """What a shift does to the pictures that were scored with it and without."""
        before, after = ([s for s in samples if s.group == one and s.values] for one in (CLEAN, group))
        shared = {s.cluster for s in before} & {s.cluster for s in after}
        before, after = ([s for s in each if s.cluster in shared] for each in (before, after))
        unscored = sum(s.group == group and not s.values for s in samples)
        if not shared:
            return [self._row(f"{name}_change", group, NOTHING, 0, unscored, "lower") for name in ("ece", "brier")]
        sides = [_outcomes(each) for each in (before, after)]
        edges = (equal_widths(), equal_widths())
        moved = ece_change(sides[0], sides[1], edges, seed=seed)
        floors = [ece_floor(side.confidence, edges[0], seed=seed) for side in sides]
        worse = paired_bootstrap(_by_cluster(before, "brier"), _by_cluster(after, "brier"), seed=seed)
        return [
            self._row("ece_change", group, moved, len(after), unscored, "lower", floors[1] - floors[0]),
            self._row("brier_change", group, worse, len(after), unscored, "lower", 0.0),
        ]

    def _row(
        self, name: str, group: str, interval: Interval, n: int, unscored: int, better: Better,
        floor: float = math.nan, says: str = "",
    ) -> Measure:  # fmt: skip
        return Measure(
            self.axis, self.name, name, group, *interval, n, unscored, better,
            judge=JUDGE, unit="number", floor=floor, says=says, ceiling=1.0,
        )  # fmt: skip


def _values(target: DualTarget, rows: Sequence[Example], names: Sequence[str]) -> list[dict[str, float]]:
    """The numbers of each picture, with those of a uniform guess as floors."""
    images = [row.image for row in rows if row.image is not None]
    logits = target.logits(images, [PHOTO.format(name) for name in names]).double()
    right = torch.tensor([names.index(row.answers[0]) for row in rows])
    confidence, said = as_probabilities(logits, target.pair_kind).max(1)
    accuracy = (said == right).double()
    columns = {
        "confidence": confidence, "accuracy": accuracy, "overconfidence": confidence - accuracy,
        "brier": brier(logits, right, target.pair_kind), "nll": nll(logits, right, target.pair_kind),
    }  # fmt: skip
    count = len(names)
    guess, first = torch.full((1, count), -math.log(count - 1), dtype=torch.float64), torch.tensor([0])
    floors = {
        f"accuracy{FLOOR}": 1 / count,
        f"overconfidence{FLOOR}": 0.0,
        f"brier{FLOOR}": float(brier(guess, first, target.pair_kind)),
        f"nll{FLOOR}": float(nll(guess, first, target.pair_kind)),
    }
    return [{name: float(column[k]) for name, column in columns.items()} | floors for k in range(len(rows))]


def _outcomes(samples: Sequence[Sample]) -> Outcomes:
    clusters: list[Hashable] = [s.cluster for s in samples]
    return Outcomes([s.values["confidence"] for s in samples], [s.values["accuracy"] > 0 for s in samples], clusters)


def _by_cluster(samples: Sequence[Sample], name: str) -> list[float]:
    """The mean of a value in each cluster, in the order of the clusters' names."""
    values: dict[str, list[float]] = {}
    for sample in sorted(samples, key=lambda one: one.cluster):
        values.setdefault(sample.cluster, []).append(sample.values[name])
    return [sum(each) / len(each) for each in values.values()]


SUITE = Calibration()
