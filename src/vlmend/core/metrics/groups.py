"""How far shares lie apart between groups of people, and what chance alone would give."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.resampling import expanded_percentile, resampled
from vlmend.core.metrics.skew import dealt
from vlmend.core.metrics.stats import Interval, check_lengths, wilson

__all__ = ["gap_by_chance", "regrouped", "share_gap"]

Array = npt.NDArray[np.float64]


def share_gap(
    hits: Sequence[float] | Sequence[bool], groups: Sequence[str], clusters: Sequence[Hashable], *, seed: int
) -> Interval:
    """Largest less smallest share of hits over the groups, 0 to 1; the interval draws whole clusters again.

    A difference of extremes is above 0 for equal groups too: read it beside `gap_by_chance`. Where resampling shows no
    spread, as where no picture is hit, the limits are those that Wilson's intervals of the extreme groups leave, with
    as many samples as clusters. NaN throughout with fewer than two groups.

    Args:
        hits: Of each picture: hit or not, or a share.
        groups: Of each picture.
        clusters: What each picture is drawn with, such as the person.
        seed: Of the draws.
    """
    check_lengths(hits=len(hits), groups=len(groups), clusters=len(clusters))
    names = sorted(set(groups))
    if len(names) < 2:
        return Interval(math.nan, math.nan, math.nan)
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([places[name] for name in clusters])
    hit, own = np.asarray(hits, np.float64), np.asarray(groups)
    columns = [np.bincount(member, (own == name) * of) for of in (hit, np.ones_like(hit)) for name in names]
    rows = np.stack(columns, axis=1).astype(np.float64)
    value = float(_gap(rows.sum(0)[None])[0])
    found = expanded_percentile(resampled(rows, _gap, seed=seed, draws=2000), value, len(rows), 0.95)
    return _without_spread(rows, value) if math.isnan(found.low) else found


def gap_by_chance(
    hits: Sequence[float] | Sequence[bool],
    groups: Sequence[str],
    clusters: Sequence[str],
    strata: Sequence[str],
    *,
    seed: int,
    draws: int,
) -> float:
    """The mean gap where groups are dealt anew among the clusters of one stratum; a cluster is of one group.

    Args:
        hits: Of each picture.
        groups: Of each picture.
        clusters: Of each picture, such as the person.
        strata: Of each picture, what it shows beside the person.
        seed: Of the dealings.
        draws: Dealings.
    """
    hit, gaps = np.asarray(hits, np.float64), list[float]()
    for own in regrouped(groups, clusters, strata, seed=seed, draws=draws):
        gaps.append(float(np.ptp([hit[own == name].mean() for name in np.unique(own)])))
    return float(np.mean(gaps))


def regrouped(
    groups: Sequence[str], clusters: Sequence[str], strata: Sequence[str], *, seed: int, draws: int
) -> Iterator[npt.NDArray[Any]]:
    """The group of each sample where groups are dealt anew among the clusters of one stratum."""
    first = {name: k for k, name in reversed(list(enumerate(clusters)))}
    names = {name: k for k, name in enumerate(dict.fromkeys(clusters))}
    rows = dealt([groups[first[c]] for c in names], [strata[first[c]] for c in names], seed=seed, draws=draws)
    place = np.array([names[c] for c in clusters])
    for row in rows:
        yield np.asarray(row)[place]


def _without_spread(rows: Array, value: float) -> Interval:
    """The gap between the groups of extreme shares, each known as well as its number of clusters allows."""
    half = rows.shape[1] // 2
    held = (rows[:, half:] > 0).sum(0)
    shares = rows[:, :half].sum(0) / rows[:, half:].sum(0)
    own = [wilson(round(share * count), count) for share, count in zip(shares.tolist(), held.tolist(), strict=True)]
    low = max(one.low for one in own) - min(one.high for one in own)
    return Interval(value, max(0.0, low), max(one.high for one in own) - min(one.low for one in own))


def _gap(sums: Array) -> Array:
    """Of sums "resample (hits of each group, pictures of each group)"; a group that was not drawn is left out."""
    half = sums.shape[1] // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = sums[:, :half] / sums[:, half:]
    known = ~np.isnan(shares).all(1)
    found = np.full(len(sums), math.nan)
    found[known] = np.nanmax(shares[known], axis=1) - np.nanmin(shares[known], axis=1)
    return found
