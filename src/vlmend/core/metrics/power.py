"""How many samples an audit needs, and what a paired comparison can see. Exact sums, no simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import binom

from vlmend.core.metrics.stats import check_level, share_interval
from vlmend.errors import BadParameter

__all__ = ["PlanRow", "paired_n", "paired_power", "plan_table", "smallest_n"]

LARGEST = 1_000_000
"""Samples beyond which no audit goes."""
FREE = 10**9
"""Degrees of freedom at which Student's t is the normal distribution."""


class PlanRow(TypedDict):
    """One answer of a plan; None where a column does not apply.

    Attributes:
        what: What is answered.
        n: Samples, as given or as needed.
        value: A rate or a power, 0 to 1.
        low, high: The 95 % interval of a rate.
    """

    what: str
    n: int
    value: float
    low: float | None
    high: float | None


def smallest_n(half_width: float, *, rate: float = 0.5, level: float = 0.95) -> int:
    """Fewest samples at which Wilson's interval, high - low, is no wider than twice the half width.

    At `rate` 0.5 it holds whatever the rate turns out to be.

    Args:
        half_width: Half the width of the interval, 0 to 0.5, ends excluded; 0.05 is 5 points.
        rate: The rate to expect, 0 to 1.
        level: Confidence level.

    Raises:
        BadParameter: A number outside its range, or more than a million samples would be needed.
    """
    check_level(level)
    problems = [f"half_width={half_width!r} is not between 0 and 0.5"] * (not 0 < half_width < 0.5)
    _refuse(problems + _outside(rate=rate))
    return _first(lambda n: _half_width(rate, n, level) <= half_width)


def paired_power(n: int, fixed: float, broken: float, *, level: float = 0.05) -> float:
    """Chance that the exact McNemar test on n pairs gives p <= level, summed over all outcomes.

    The number of pairs that change is binomial(n, fixed + broken); given m of them, the fixed ones are
    binomial(m, fixed / (fixed + broken)).

    Args:
        n: Pairs.
        fixed: Share of pairs that are true before and false after.
        broken: Share of pairs that are false before and true after.
        level: Level of the two-sided test.

    Raises:
        BadParameter: A number outside its range.
    """
    check_level(level)
    _refuse([f"n={n!r} is below 1"] * (n < 1) + _shares(fixed, broken))
    changed = fixed + broken
    if changed == 0:
        return 0.0
    m = np.arange(n + 1)
    return min(1.0, float(binom.pmf(m, n, changed) @ _rejected(m, fixed / changed, level)))


def paired_n(fixed: float, broken: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """Fewest pairs at which the exact McNemar test has that power; see `paired_power`.

    Raises:
        BadParameter: A number outside its range, shares that are equal (no n shows a difference that is not
            there), or more than a million pairs would be needed.
    """
    check_level(level)
    problems = [f"power={power!r} is not between 0 and 1"] * (not 0 < power < 1) + _shares(fixed, broken)
    _refuse(problems + [f"fixed and broken are both {fixed!r}: there is nothing to find"] * (fixed == broken))
    z = float(ndtri(1 - level / 2)) + float(ndtri(power))
    if z**2 * (fixed + broken) / (fixed - broken) ** 2 > LARGEST:
        raise BadParameter("More than a million pairs would be needed.", "Plan for a larger change.")
    return _first(lambda n: paired_power(n, fixed, broken, level=level) >= power)


def plan_table(*, rate: float, to: float, n: int, broken: float = 0.02) -> list[PlanRow]:
    """What n samples can show of a rate and of its drop, and how many samples would do.

    Args:
        rate: The rate before, 0 to 1.
        to: The rate hoped for after, below `rate`.
        n: Samples, each asked before and after.
        broken: Share of samples that change for the worse all the same; fixed = rate - to + broken.

    Raises:
        BadParameter: A number outside its range, or rates and share that cannot hold together.
    """
    fixed = rate - to + broken
    problems = _outside(rate=rate, to=to, broken=broken) + [f"n={n!r} is below 1"] * (n < 1)
    if not problems:
        problems = [f"to={to!r} is not below rate={rate!r}; for a rise, swap them"] * (to >= rate)
        room = min(to, 1 - rate)
        problems += [f"broken={broken!r} is more than these rates leave ({room:.3g})"] * (broken > room + 1e-12)
    _refuse(problems)
    rows = [_expected(f"rate {name}", n, share) for name, share in (("before", rate), ("after", to))]
    for points in (10, 5):
        needed = smallest_n(points / 100, rate=rate)
        rows.append(_expected(f"smallest n for +-{points} points", needed, rate))
    rows.append(_row("power of the paired test", n, paired_power(n, fixed, broken)))
    for power in (0.8, 0.9):
        needed = paired_n(fixed, broken, power=power)
        rows.append(_row(f"smallest n for {power:.0%} power", needed, paired_power(needed, fixed, broken)))
    return rows


def _expected(what: str, n: int, rate: float) -> PlanRow:
    """Wilson's 95 % interval if exactly that share of n is a hit."""
    error = math.sqrt(rate * (1 - rate) / n)
    interval = share_interval(rate, error, least=n, most=n, df=FREE, level=0.95)
    return {"what": what, "n": n, "value": rate, "low": interval.low, "high": interval.high}


def _row(what: str, n: int, value: float) -> PlanRow:
    return {"what": what, "n": n, "value": value, "low": None, "high": None}


def _half_width(rate: float, n: int, level: float) -> float:
    """Half of Wilson's high - low at a hit count of rate n; it falls with n."""
    z = float(ndtri((1 + level) / 2))
    return z * math.sqrt(rate * (1 - rate) * n + z * z / 4) / (n + z * z)


def _rejected(m: npt.NDArray[np.int64], share: float, level: float) -> npt.NDArray[np.float64]:
    """Chance of p <= level given m changed pairs: at most c of them one way, or at most c the other."""
    c = binom.ppf(level / 2, m, 0.5)
    c = np.where(binom.cdf(c, m, 0.5) > level / 2, c - 1, c)
    return np.where(c >= 0, binom.cdf(c, m, share) + binom.sf(m - c - 1, m, share), 0.0)


def _first(enough: Callable[[int], bool]) -> int:
    """The smallest n that is enough, where every larger n is too."""
    high = 1
    while not enough(high):
        high *= 2
        if high > 2 * LARGEST:
            raise BadParameter("More than a million samples would be needed.", "Ask for less.")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _shares(fixed: float, broken: float) -> list[str]:
    told = _outside(fixed=fixed, broken=broken)
    return told or [f"fixed + broken is {fixed + broken:.3g}, more than all"] * (fixed + broken > 1 + 1e-12)


def _outside(**shares: float) -> list[str]:
    return [f"{name}={value!r} is not between 0 and 1" for name, value in shares.items() if not 0 <= value <= 1]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise BadParameter(f"{'; '.join(problems)}.", "Give shares as 0.6, not as 60.")
