"""Two runs on the same samples: every paired test of a comparison, adjusted together.

A scorecard row says how it is compared (`Measure.compared`). Of a share each sample is a unit, and the test is
McNemar's; of a mean each cluster of samples is one, and the test flips signs. The report reads the samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlmend.core.measures import Measure, behind
from vlmend.core.metrics.resampling import paired_bootstrap, sign_flip
from vlmend.core.metrics.stats import Interval, holm, mcnemar, paired_difference
from vlmend.core.verdicts import UNREAD

__all__ = ["Evidence", "Observed", "Paired", "evidence_of", "paired_tests"]

NEAR = 1e-6
"""How near the samples' own mean must come to the row's value for them to be what it was computed from."""


@dataclass(frozen=True)
class Observed:
    """One sample of a run, as paired tests need it.

    Attributes:
        key: What has the same key in two runs is the same question.
        group, condition: They tell which rows it stands behind.
        cluster: Samples of one cluster depend on each other.
        label: Its verdict; empty or `unscored` where it has none.
        values: Its numbers, by measure.
    """

    key: str
    group: str
    condition: str
    cluster: str
    label: str = ""
    values: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Evidence:
    """What a row was computed from: of a share 1 or 0 for each sample, of a mean the mean of each cluster."""

    row: Measure
    units: Mapping[str, float]


@dataclass(frozen=True)
class Paired:
    """One row in two runs, on the units that both scored.

    Attributes:
        before, after: The rows.
        difference: After minus before, with its 95 % interval: Tango's of a share, by paired bootstrap of a mean.
        n: Units: samples of a share, clusters of a mean.
        fixed, broken: Samples of a share that counted before only, and after only; 0 of a mean.
        p_value: Exact McNemar of a share, sign flips of a mean.
        holm: The same, adjusted for every paired test of the comparison.
    """

    before: Measure
    after: Measure
    difference: Interval
    n: int
    fixed: int
    broken: int
    p_value: float
    holm: float


def evidence_of(rows: Sequence[Measure], samples: Mapping[str, Sequence[Observed]]) -> list[Evidence]:
    """The evidence of each row that is compared and whose samples give its own number.

    A row of which samples are lost has none, nor has a share whose samples depend on each other (requests that were
    asked several times): McNemar's test takes independent pairs.

    Args:
        rows: Of one scorecard.
        samples: Of its run, by suite.
    """
    found: list[Evidence] = []
    for row in rows:
        here = [sample for sample in samples.get(row.suite, ()) if behind(row, sample)]
        match row.compared:
            case "share":
                scored = [(s, float(s.label in row.hit)) for s in here if s.label not in ("", *UNREAD)]
                alone = len({s.key for s, _ in scored}) == len({s.cluster for s, _ in scored}) == len(scored)
                units = {s.key: hit for s, hit in scored} if alone else {}
            case "mean":
                scored = [(s, s.values[row.name]) for s in here if math.isfinite(s.values.get(row.name, math.nan))]
                units = _means(scored)
            case "none":
                continue
        if units and len(scored) == row.n and _near(sum(value for _, value in scored) / row.n, row.of_samples):
            found.append(Evidence(row, units))
    return found


def paired_tests(before: Sequence[Evidence], after: Sequence[Evidence], *, seed: int) -> list[Paired]:
    """Every row that both runs can be compared by, in the order of the first; one family for Holm's adjustment.

    Rows without a common unit, and those that two judges told, are left out.

    Args:
        before, after: Evidence of the two runs.
        seed: Of resampling and sampled sign flips.
    """
    others = {_name(evidence.row): evidence for evidence in after}
    found: list[tuple[Measure, Measure, Interval, int, int, int, float]] = []
    for first in before:
        second = others.get(_name(first.row))
        if second is None or _told(second.row) != _told(first.row):
            continue
        shared = [unit for unit in first.units if unit in second.units]
        old, new = [first.units[unit] for unit in shared], [second.units[unit] for unit in shared]
        if shared:
            found.append((first.row, second.row, *_tested(first.row, old, new, seed)))
    adjusted = holm([p for *_, p in found])
    return [Paired(*test, p) for test, p in zip(found, adjusted, strict=True)]


def _tested(
    row: Measure, old: Sequence[float], new: Sequence[float], seed: int
) -> tuple[Interval, int, int, int, float]:
    """Difference, units, fixed, broken and p-value."""
    if row.compared == "mean":
        return paired_bootstrap(old, new, seed=seed), len(old), 0, 0, sign_flip(old, new, seed=seed)
    hits, later = [bool(x) for x in old], [bool(x) for x in new]
    test = mcnemar(hits, later)
    return paired_difference(hits, later), test.n, test.fixed, test.broken, test.p_value


def _means(scored: Sequence[tuple[Observed, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for sample, value in scored:
        values.setdefault(sample.cluster, []).append(value)
    return {cluster: sum(every) / len(every) for cluster, every in values.items()}


def _near(found: float, told: float) -> bool:
    return math.isclose(found, told, rel_tol=NEAR, abs_tol=NEAR)


def _told(row: Measure) -> tuple[str, str]:
    """How it is compared, and who read its samples."""
    return row.compared, row.judge_of_samples


def _name(row: Measure) -> tuple[str, str, str]:
    return row.suite, row.name, row.group
