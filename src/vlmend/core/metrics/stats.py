"""Intervals of a share and of a paired difference, exact paired tests, agreement of two raters.

scipy does the mathematics. Intervals by resampling are in `resampling`, sample sizes in
`power`, corrections for a judge's errors in `correction`, agreement with intervals in `raters`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit
from scipy.stats import binomtest

from vlmend.errors import BadParameter

__all__ = [
    "Interval", "PairedTest", "agreement", "check_lengths", "check_level", "difference", "holm", "mcnemar",
    "mean_share", "paired_difference", "share_interval", "wilson",
]  # fmt: skip

EDGE = 1 - 1e-12
"""As near to a difference of 1 as the score statistic is defined."""


class Interval(NamedTuple):
    """An estimate with its interval; NaN limits where the data cannot tell how far off it may be."""

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
    """Share of equal labels and Cohen's kappa (NaN where chance alone gives full agreement); NaN without labels."""
    n = len(ours)
    if not n:
        return math.nan, math.nan
    observed = sum(a == b for a, b in zip(ours, theirs, strict=True)) / n
    labels = set(ours) | set(theirs)
    chance = sum(ours.count(label) * theirs.count(label) for label in labels) / n**2
    return observed, math.nan if chance == 1 else (observed - chance) / (1 - chance)


def paired_difference(before: Sequence[bool], after: Sequence[bool], *, level: float = 0.95) -> Interval:
    """Rate after minus rate before on the same samples, with Tango's score interval.

    The limits are the differences d at which the score statistic
    (broken - fixed - n d) / sqrt(n (2 q + d (1 - d))) is +-z, where q is the share of fixed that is most
    likely given d. Between -1 and 1; never of zero width, also where no sample changed. NaN throughout
    without samples. Not valid where samples depend on each other (epochs): see `cluster_bootstrap`.

    Source: Tango, Statistics in Medicine 17 (1998), 891-908.

    Raises:
        BadParameter: Different lengths, or a level that is none.
    """
    check_lengths(before=len(before), after=len(after))
    check_level(level)
    n = len(before)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    fixed = sum(b and not a for b, a in zip(before, after, strict=True))
    broken = sum(a and not b for b, a in zip(before, after, strict=True))
    value, z = (broken - fixed) / n, float(ndtri((1 + level) / 2))
    low = -1.0 if value == -1 else _tango_limit(z, fixed, broken, n, -EDGE, value)
    high = 1.0 if value == 1 else _tango_limit(-z, fixed, broken, n, value, EDGE)
    return Interval(value, low, high)


def difference(first: Interval, second: Interval) -> Interval:
    """First less second of two independent samples, from the interval of each; NaN limits where one has none.

    Each limit lies as far off as the limits of both that point there, by Pythagoras. With Wilson's intervals it is
    Newcombe's interval of two independent shares.

    Source: Newcombe, Statistics in Medicine 17 (1998), 873-890; Zou and Donner, Statistics in Medicine 27 (2008),
    1693-1702.
    """
    value = first.value - second.value
    return Interval(
        value,
        value - math.hypot(first.value - first.low, second.high - second.value),
        value + math.hypot(first.high - first.value, second.value - second.low),
    )


def mean_share(parts: Sequence[Interval]) -> Interval:
    """The mean of independent shares, each counting the same, from the interval of each; NaN of none.

    Parts that are NaN (nothing was scored) are left out. Limits by Pythagoras, as of `difference`.
    """
    known = [part for part in parts if not math.isnan(part.value)]
    if not known:
        return Interval(math.nan, math.nan, math.nan)
    value = math.fsum(part.value for part in known) / len(known)
    below = math.hypot(*(part.value - part.low for part in known)) / len(known)
    above = math.hypot(*(part.high - part.value for part in known)) / len(known)
    return Interval(value, max(0.0, value - below), min(1.0, value + above))


def share_interval(value: float, error: float, *, least: int, most: int, df: int, level: float) -> Interval:
    """Wilson's interval of a share that is known with a standard error, however that came about.

    It is Wilson's interval at the effective sample size value (1 - value) / error^2 (no whole number, so not
    scipy's), with the quantile of Student's t in place of the normal one. Unlike value +- t error it stays
    within 0 and 1 and covers small rates (measured in tests/core/test_stats_coverage.py).

    Args:
        value: The share; outside 0 to 1 it counts as the nearer of them.
        error: Its standard error; 0 counts as `least` samples.
        least, most: Bounds of the effective sample size.
        df: Degrees of freedom of the error, at least 1.
        level: Confidence level.
    """
    share = min(max(value, 0.0), 1.0)
    effective = share * (1 - share) / error**2 if error > 0 else 0.0
    n, t = min(max(effective, least), most), float(stdtrit(df, (1 + level) / 2))
    middle = (share + t * t / (2 * n)) / (1 + t * t / n)
    half = t * math.sqrt(share * (1 - share) / n + t * t / (4 * n * n)) / (1 + t * t / n)
    return Interval(share, min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: reject those up to the level of all together.

    Valid however the tests depend on each other.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.

    Raises:
        BadParameter: A p-value outside 0 to 1.
    """
    bad = [p for p in p_values if not 0 <= p <= 1]
    if bad:
        raise BadParameter(f"{bad[0]!r} is no p-value.", "Leave out tests that gave none.")
    if not p_values:
        return []
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def check_lengths(**lengths: int) -> None:
    """Columns of one table have one length.

    Raises:
        BadParameter: They differ.
    """
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise BadParameter(f"The columns differ in length ({told}).", "Pass one value a sample in each, in one order.")


def check_level(level: float) -> None:
    """A confidence level.

    Raises:
        BadParameter: It is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise BadParameter(f"level={level!r} is no confidence level.", "Pass one between 0 and 1, such as 0.95.")


def _tango_limit(z: float, fixed: int, broken: int, n: int, low: float, high: float) -> float:
    """The difference between low and high at which the score statistic is z."""
    found = cast(Any, brentq(lambda difference: _tango(difference, fixed, broken, n) - z, low, high))
    return float(found)


def _tango(difference: float, fixed: int, broken: int, n: int) -> float:
    """The score statistic at a difference; falls as the difference grows."""
    b = -broken - fixed + (2 * n - broken + fixed) * difference
    c = -fixed * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    gap = broken - fixed - n * difference
    return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap) if gap else 0.0
