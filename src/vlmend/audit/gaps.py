"""How far a share lies apart between groups, as a scorecard row with its floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlmend.audit.means import JUDGE
from vlmend.core.contracts import AbstractSuite, Sample
from vlmend.core.measures import Measure
from vlmend.core.metrics.groups import gap_by_chance, share_gap

__all__ = ["LEAST", "gap_row"]

LEAST = 10
"""Samples of a group below which it is shown and not ranked."""

DRAWS = 100
"""Dealings of the groups behind the floor."""


def gap_row(
    suite: AbstractSuite[Any],
    name: str,
    group: str,
    samples: Sequence[Sample],
    value: str,
    seed: int,
    says: str = "",
) -> Measure | None:
    """Largest less smallest mean of a `value` between 0 and 1 (a hit or not, or a share), over the groups large enough.

    What chance gives deals groups anew among samples of one text: whole clusters where each is of one group, such as
    people, else single samples. None with fewer than two groups to rank.
    """
    scored = [sample for sample in samples if value in sample.values]
    held = Counter(sample.group for sample in scored)
    ranked = [sample for sample in scored if held[sample.group] >= LEAST]
    groups, clusters = [sample.group for sample in ranked], [sample.cluster for sample in ranked]
    if len(set(groups)) < 2:
        return None
    hits, strata = [sample.values[value] for sample in ranked], [sample.text for sample in ranked]
    whole = len(set(zip(clusters, groups, strict=True))) == len(set(clusters))
    dealt = clusters if whole else [sample.id for sample in ranked]
    return Measure(
        suite.axis, suite.name, name, group, *share_gap(hits, groups, clusters, seed=seed), len(ranked),
        len(samples) - len(ranked), "lower", judge=JUDGE, unit="share",
        floor=gap_by_chance(hits, groups, dealt, strata, seed=seed, draws=DRAWS), says=says,
    )  # fmt: skip
