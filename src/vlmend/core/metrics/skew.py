"""How evenly groups come up in a ranking: bias, skew and divergence, and what chance alone would give.

A ranking is the group of each picture, best first. `k` is how many of the first are looked at. Measures that take
an absolute value or a maximum are above 0 for a fair ranker too, so each has a floor: its mean where pictures
keep their places but groups are dealt at random among pictures of one stratum (of one profession, say).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr
from scipy.stats import hypergeom

from vlmend.errors import BadParameter

__all__ = ["ABSENT", "bias_at", "count_law", "dealt", "mean_under", "ndkl", "shares_of", "skews_at"]

ABSENT = 0.5
"""What a group that is absent from the first k counts as, in pictures: its logarithm would be minus infinity."""

Array = npt.NDArray[np.float64]


def bias_at(ranked: Sequence[str], k: int, toward: str, against: str) -> float:
    """Bias@k of one query, -1 to 1: (toward - against) / (toward + against) in the first k, 0 where neither is.

    Source: Wang, Liu, Wang, EMNLP 2021, arXiv 2109.05433.
    """
    first, second = (list(ranked[:k]).count(group) for group in (toward, against))
    return (first - second) / (first + second) if first + second else 0.0


def skews_at(ranked: Sequence[str], k: int, desired: Mapping[str, float]) -> dict[str, float]:
    """ln(share in the first k / desired share) of each group; MaxSkew@k and MinSkew@k are the extremes.

    A group that is absent counts as `ABSENT` pictures, but never as favoured: this bounds MinSkew@k, and leaves
    MaxSkew@k alone.

    Source: Geyik, Ambler, Kenthapadi, KDD 2019, arXiv 1905.01989.

    Raises:
        BadParameter: `desired` are no shares of the groups.
    """
    _check_shares(ranked, desired)
    counts, seen = Counter(ranked[:k]), min(k, len(ranked))
    return {
        group: math.log(counts[group] / seen / share) if counts[group] else min(0.0, math.log(ABSENT / seen / share))
        for group, share in desired.items()
    }


def ndkl(ranked: Sequence[str], desired: Mapping[str, float]) -> float:
    """Normalised discounted KL divergence of every prefix from the desired shares; 0 is even.

    (1/Z) sum_i KL(shares in the first i || desired) / log2(i + 1), Z = sum_i 1 / log2(i + 1).

    Source: Geyik, Ambler, Kenthapadi, KDD 2019, arXiv 1905.01989.

    Raises:
        BadParameter: `desired` are no shares of the groups.
    """
    _check_shares(ranked, desired)
    places = np.arange(1, len(ranked) + 1)
    shares = (np.asarray(ranked)[:, None] == np.array(list(desired))).cumsum(0) / places[:, None]
    divergence = rel_entr(shares, np.array(list(desired.values()))).sum(1)
    weight = 1 / np.log2(places + 1)
    return float((divergence * weight).sum() / weight.sum())


def shares_of(groups: Sequence[str]) -> dict[str, float]:
    """The share of each group, in the order of their names."""
    return {group: count / len(groups) for group, count in sorted(Counter(groups).items())}


def count_law(drawn: Mapping[str, int], held: Mapping[str, tuple[int, int]]) -> Array:
    """The law of how many of the first k are of the first of two groups, where groups are dealt at random.

    Exact: within a stratum the count is hypergeometric, and strata are independent.

    Args:
        drawn: Of the first k, how many are of each stratum.
        held: Of all pictures, how many of each stratum are of the first and of the second group.

    Shape:
        Entry c is the probability of c, "k + 1".
    """
    law = np.ones(1)
    for stratum, n in drawn.items():
        first, second = held[stratum]
        law = np.convolve(law, hypergeom.pmf(np.arange(n + 1), first + second, first, n))
    return law


def mean_under(law: Array, measure: Callable[[Sequence[str]], float], first: str, second: str) -> float:
    """The mean of a measure of the first k, under the law of how many of them are of the first group."""
    k = len(law) - 1
    return float(sum(p * measure([first] * c + [second] * (k - c)) for c, p in enumerate(law) if p > 0))


def dealt(ranked: Sequence[str], strata: Sequence[str], *, seed: int, draws: int) -> list[list[str]]:
    """Rankings in which groups are dealt at random among the pictures of each stratum."""
    rng, table = np.random.default_rng(seed), np.repeat(np.asarray(ranked)[None], draws, axis=0)
    for stratum in dict.fromkeys(strata):
        places = [place for place, own in enumerate(strata) if own == stratum]
        table[:, places] = rng.permuted(table[:, places], axis=1)
    return table.tolist()


def _check_shares(ranked: Sequence[str], desired: Mapping[str, float]) -> None:
    lost = sorted(set(ranked) - set(desired))
    if lost or not ranked or min(desired.values()) <= 0 or not math.isclose(sum(desired.values()), 1):
        what = f"has no share for {', '.join(lost)}" if lost else f"does not fit {len(ranked)} pictures"
        raise BadParameter(
            f"The desired distribution {dict(desired)} {what}.", "Pass a share above 0 of every group, 1 in all."
        )
