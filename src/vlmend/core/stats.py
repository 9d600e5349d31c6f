"""Intervals and paired tests; scipy does the mathematics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import binomtest

__all__ = ["Interval", "PairedTest", "agreement", "mcnemar", "wilson"]


class Interval(NamedTuple):
    """A proportion with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two runs on the same samples.

    Attributes:
        n: Samples that both runs scored.
        fixed: True before, false after.
        broken: False before, true after.
        p_value: Two-sided exact McNemar.
    """

    n: int
    fixed: int
    broken: int
    p_value: float


def wilson(successes: int, n: int) -> Interval:
    """Proportion with Wilson's 95 % score interval; NaN throughout when n is 0."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> PairedTest:
    """Exact McNemar test: are changes one way as likely as the other? (binomial, p = 1/2)."""
    pairs = list(zip(before, after, strict=True))
    fixed = sum(b and not a for b, a in pairs)
    broken = sum(a and not b for b, a in pairs)
    p_value = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    return PairedTest(len(pairs), fixed, broken, p_value)


def agreement(ours: list[str], theirs: list[str]) -> tuple[float, float]:
    """Share of equal labels and Cohen's kappa (NaN where chance alone gives full agreement)."""
    n = len(ours)
    observed = sum(a == b for a, b in zip(ours, theirs, strict=True)) / n
    labels = set(ours) | set(theirs)
    chance = sum(ours.count(label) * theirs.count(label) for label in labels) / n**2
    return observed, math.nan if chance == 1 else (observed - chance) / (1 - chance)
