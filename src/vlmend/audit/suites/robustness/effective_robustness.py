"""robustness/effective_robustness: what did a mend take from shifted pictures, beyond what ordinary ones explain?

With I and O the accuracy on ordinary and on shifted pictures, before and after the mend, and a line of slope 1 on logit
axes through the model before,

    expected = sigmoid(logit O_before + logit I_after - logit I_before),   effective = O_after - expected

Below 0 the mend costs robustness to the shift; what ordinary pictures gained or lost is taken into account.

The idea is that of Andreassen et al. 2021 and of WiSE-FT (arXiv 2109.01903), whose line is fitted over many models; the
line of slope 1 through one model is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, logit

from vlmend.audit.means import FLOOR, JUDGE, mean_row
from vlmend.audit.shifted import CLEAN, names_of, shifted_samples
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Measure
from vlmend.core.metrics.resampling import expanded_percentile, paired_bootstrap, resampled
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.pictures.galleries import PHOTO

__all__ = ["SUITE", "EffectiveRobustness", "effective"]

Array = npt.NDArray[np.float64]

BEFORE = "before"
"""The value of a sample that tells whether the model without mends names it right."""

DRAWS = 2000

SAYS = "names {value} of shifted pictures right beyond what ordinary ones lead to expect"


class EffectiveRobustness(SampleSuite[DualTarget]):
    """Accuracy by shift, what each shift costs on the same pictures, and what the view's mends changed of that."""

    name: ClassVar[str] = "robustness/effective_robustness"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "what a mend takes from shifted pictures beyond what ordinary ones explain (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return len(names_of(data)) > 1

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        return shifted_samples(subject, data, limit, split, lambda rows, names: _values(subject, rows, names))

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        groups = list(dict.fromkeys(sample.group for sample in samples))
        found = [
            mean_row(self.axis, self.name, "accuracy", group, samples, "higher", "share", seed) for group in groups
        ]
        for group in groups if CLEAN in groups else []:
            if group != CLEAN:
                found += self._under(group, samples, seed)
        return found

    def _under(self, group: str, samples: Sequence[Sample], seed: int) -> list[Measure]:
        """What a shift costs, and how much less or more than expected; on things that were scored with and without."""
        plain, shifted = (_by_cluster([s for s in samples if s.group == one and s.values]) for one in (CLEAN, group))
        both = [one for one in plain if one in shifted]
        unscored = sum(s.group == group and not s.values for s in samples)
        empty = Measure(
            self.axis, self.name, "change", group, math.nan, math.nan, math.nan, len(both), unscored, "higher",
            judge=JUDGE, floor=0.0,
        )  # fmt: skip
        if not both:
            return [empty]
        before, after = ([values[one]["accuracy"] for one in both] for values in (plain, shifted))
        value, low, high = paired_bootstrap(before, after, seed=seed)
        found = [replace(empty, value=value, low=low, high=high)]
        if all(BEFORE in values[one] for one in both for values in (plain, shifted)):
            value, low, high = effective([_of(plain[one], shifted[one]) for one in both], seed=seed)
            found.append(replace(empty, name="effective", value=value, low=low, high=high, says=SAYS))
        return found


def effective(rows: Sequence[tuple[float, float, float, float]], *, seed: int, level: float = 0.95) -> Interval:
    """Accuracy under the shift less what the line leads to expect; the interval resamples things.

    Half a right and half a wrong thing are added everywhere, so that odds are finite.

    Args:
        rows: Of each thing whether it was named right: before, ordinary and shifted; after, ordinary and shifted.
    """
    table, n = np.asarray(rows, dtype=np.float64), len(rows)

    def statistic(sums: Array) -> Array:
        shares = (sums.T + 0.5) / (n + 1)
        plain_before, shifted_before, plain, _ = logit(shares)
        return shares[3] - expit(shifted_before + plain - plain_before)

    value = float(statistic(table.sum(0, keepdims=True))[0])
    return expanded_percentile(resampled(table, statistic, seed=seed, draws=DRAWS), value, n, level)


def _by_cluster(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """The mean of each value over the pictures of each thing."""
    things: dict[str, list[Mapping[str, float]]] = {}
    for sample in samples:
        things.setdefault(sample.cluster, []).append(sample.values)
    return {
        thing: {name: sum(each[name] for each in values) / len(values) for name in values[0]}
        for thing, values in things.items()
    }


def _of(plain: Mapping[str, float], shifted: Mapping[str, float]) -> tuple[float, float, float, float]:
    return plain[BEFORE], shifted[BEFORE], plain["accuracy"], shifted["accuracy"]


def _values(target: DualTarget, rows: Sequence[Example], names: Sequence[str]) -> list[dict[str, float]]:
    """Whether each picture is named right, by the view and, where it has mends, by the model without them."""
    images = [row.image for row in rows if row.image is not None]
    texts, right = [PHOTO.format(name) for name in names], torch.tensor([names.index(row.answers[0]) for row in rows])
    views = {"accuracy": target} | ({BEFORE: target.bare} if target.mends else {})
    told = {name: (view.logits(images, texts).argmax(1) == right).tolist() for name, view in views.items()}
    floor = {f"accuracy{FLOOR}": 1 / len(names)}
    return [{name: float(each[k]) for name, each in told.items()} | floor for k in range(len(rows))]


SUITE = EffectiveRobustness()
