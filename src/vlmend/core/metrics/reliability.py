"""Does confidence mean accuracy? Binned calibration errors, their intervals, floors and paired changes.

With B bins of confidence and N samples the expected calibration error is

    ECE = sum over bins of |sum over the bin's samples of (right - confidence)| / N

Over all samples at once: the mean of errors of batches is larger. It is never below 0 and grows as samples get fewer,
so what a calibrated model would show stands beside it (`ece_floor`).

Source: Guo et al., ICML 2017, arXiv 1706.04599.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.resampling import expanded_percentile, resampled
from vlmend.core.metrics.stats import Interval, check_lengths, wilson
from vlmend.errors import BadParameter

__all__ = ["BINS", "Outcomes", "ece", "ece_change", "ece_floor", "equal_counts", "equal_widths", "reliability"]

Array = npt.NDArray[np.float64]

BINS = 15
"""Bins of confidence, as in Guo et al."""
DRAWS = 2000
FLOOR_DRAWS = 200


@dataclass(frozen=True)
class Outcomes:
    """What a classifier said of some samples.

    Attributes:
        confidence: Probability of what it chose, 0 to 1.
        right: Whether that was right.
        clusters: Samples of one cluster depend on each other.

    Raises:
        BadParameter: Different lengths, no sample, or a confidence outside 0 to 1.
    """

    confidence: Sequence[float]
    right: Sequence[bool]
    clusters: Sequence[Hashable]

    def __post_init__(self) -> None:
        check_lengths(confidence=len(self.confidence), right=len(self.right), clusters=len(self.clusters))
        if not self.confidence or not all(0 <= p <= 1 for p in self.confidence):
            raise BadParameter(
                f"{len(self.confidence)} confidences have no calibration error.",
                "Pass one or more, each between 0 and 1; leave out what could not be scored.",
            )

    def among(self, clusters: set[Hashable]) -> Outcomes:
        """The samples of these clusters."""
        kept = [k for k, cluster in enumerate(self.clusters) if cluster in clusters]
        return Outcomes(
            [self.confidence[k] for k in kept], [self.right[k] for k in kept], [self.clusters[k] for k in kept]
        )


def equal_widths(bins: int = BINS) -> Array:
    """Inner edges of bins of one width; an edge belongs to the bin below it."""
    return np.linspace(0, 1, bins + 1)[1:-1]


def equal_counts(confidence: Sequence[float], bins: int = BINS) -> Array:
    """Inner edges of bins that hold equally many of these (adaptive ECE); equal confidences share a bin."""
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    return np.unique(np.quantile(np.asarray(confidence), shares, method="inverted_cdf"))


def ece(outcomes: Outcomes, edges: Array, *, seed: int, level: float = 0.95) -> Interval:
    """The error between these edges; the interval resamples clusters, the edges stay.

    Resampled errors are larger by about the bias of the estimate itself, so their expanded percentile interval is moved
    until its mean is the estimate. It covers what the estimate gives at this number of samples, bias included.
    """
    clusters = tuple(dict.fromkeys(outcomes.clusters))
    rows = _sums(outcomes, edges, clusters)
    found = resampled(rows, _error, seed=seed, draws=DRAWS)
    value, low, high = _moved(found, float(_error(rows.sum(0, keepdims=True))[0]), len(clusters), level)
    return Interval(value, max(low, 0.0), min(high, 1.0))


def ece_change(
    before: Outcomes, after: Outcomes, edges: tuple[Array, Array], *, seed: int, level: float = 0.95
) -> Interval:
    """The error after minus that before on the clusters of both, which are resampled together.

    Args:
        edges: Of the bins before, and after.

    Raises:
        BadParameter: They have no cluster in common.
    """
    shared = set(before.clusters) & set(after.clusters)
    clusters = tuple(one for one in dict.fromkeys(before.clusters) if one in shared)
    parts = [_sums(each.among(shared), these, clusters) for each, these in zip((before, after), edges, strict=True)]
    width = parts[0].shape[1]

    def change(sums: Array) -> Array:
        return _error(sums[:, width:]) - _error(sums[:, :width])

    rows = np.concatenate(parts, axis=1)
    found = resampled(rows, change, seed=seed, draws=DRAWS)
    return _moved(found, float(change(rows.sum(0, keepdims=True))[0]), len(clusters), level)


def reliability(outcomes: Outcomes, edges: Array) -> list[tuple[float, Interval, int]]:
    """For each bin that holds a sample: the mean confidence, the share that is right with Wilson's interval, and n."""
    sure, right = np.asarray(outcomes.confidence, dtype=np.float64), np.asarray(outcomes.right)
    places = np.searchsorted(edges, sure)
    inside = [places == k for k in np.unique(places)]
    return [(float(sure[k].mean()), wilson(int(right[k].sum()), int(k.sum())), int(k.sum())) for k in inside]


def ece_floor(confidence: Sequence[float], edges: Array, *, seed: int) -> float:
    """The mean error of a calibrated model with these confidences: each is right as often as it is sure."""
    sure, rng = np.asarray(confidence, dtype=np.float64), np.random.default_rng(seed)
    places = np.searchsorted(edges, sure)
    drawn = ((rng.random(len(sure)) < sure) - sure for _ in range(FLOOR_DRAWS))
    return float(np.mean([np.abs(np.bincount(places, gaps)).sum() / len(sure) for gaps in drawn]))


def _sums(outcomes: Outcomes, edges: Array, clusters: Sequence[Hashable]) -> Array:
    """For each cluster the sum of right less confidence in each bin, and last its number of samples."""
    sure = np.asarray(outcomes.confidence, dtype=np.float64)
    gaps = np.asarray(outcomes.right, dtype=np.float64) - sure
    names = {name: k for k, name in enumerate(clusters)}
    members = np.array([names[name] for name in outcomes.clusters])
    cells = members * (len(edges) + 1) + np.searchsorted(edges, sure)
    binned = np.bincount(cells, gaps, minlength=len(clusters) * (len(edges) + 1)).reshape(len(clusters), -1)
    return np.column_stack([binned, np.bincount(members, minlength=len(clusters))]).astype(np.float64)


def _error(sums: Array) -> Array:
    """From sums of clusters, one row a resample."""
    return np.abs(sums[:, :-1]).sum(1) / sums[:, -1]


def _moved(estimates: Array, value: float, n: int, level: float) -> Interval:
    return expanded_percentile(estimates - estimates.mean() + value, value, n, level)
