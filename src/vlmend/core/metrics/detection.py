"""Telling pictures of known things from others: scores, and how well a score tells them apart.

A score is high for what is known. The two scores are those of pytorch-ood's `MCM` and `MaxLogit`, with the sign
turned: that package imports torchvision, and one that does not fit the installed torch breaks transformers, so
these two lines are written here instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.stats import bootstrap
from torch import Tensor

from vlmend.core.metrics.stats import Interval, wilson
from vlmend.errors import BadParameter

__all__ = [
    "KEPT", "Detection", "Several", "auroc", "detection", "detection_over", "fpr_at", "max_logit", "mcm",
    "threshold_keeping",
]  # fmt: skip

KEPT = 0.95
"""Share of known pictures that a threshold keeps (the 95 of FPR95)."""

Array = npt.NDArray[np.float64]
Scores = Sequence[float] | Array


def mcm(cosines: Float[Tensor, "image text"], temperature: float = 1.0) -> Float[Tensor, " image"]:
    """Maximum concept matching: the largest softmax over the cosines with the names of what is known.

    In float64: with a thousand names and temperature 1, scores differ in their fourth digit only.

    Source: Ming et al., NeurIPS 2022, arXiv 2211.13445.
    """
    return (cosines.double() / temperature).softmax(1).amax(1)


def max_logit(logits: Float[Tensor, "image text"]) -> Float[Tensor, " image"]:
    """The largest logit. Source: Hendrycks et al., ICML 2022, arXiv 1911.11132."""
    return logits.amax(1)


class Detection(NamedTuple):
    """How well a score tells known pictures from others, each with its interval."""

    auroc: Interval
    fpr95: Interval


def detection(known: Scores, other: Scores, *, seed: int, draws: int = 1000) -> Detection:
    """AUROC, and the share of other pictures above the threshold that keeps 95 % of the known ones.

    Intervals: percentile bootstrap over the pictures of either kind (scipy `bootstrap`). Where all resamples agree
    on 0 or 1, Wilson's interval with as many samples as the smaller kind has; elsewhere NaN limits.

    Raises:
        BadParameter: Fewer than two pictures of a kind, or scores that are not finite.
    """
    first, second = np.asarray(known, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if min(len(first), len(second)) < 2 or not np.isfinite(np.concatenate([first, second])).all():
        raise BadParameter(
            f"{len(first)} known and {len(second)} other pictures cannot be told apart by these scores.",
            "Pass two or more finite scores of each kind.",
        )
    return Detection(*(_resampled(statistic, first, second, seed, draws) for statistic in (auroc, fpr_at)))


class Several(NamedTuple):
    """One statistic in several wordings of the names: its mean, and the largest less the smallest."""

    mean: Interval
    spread: Interval


def detection_over(known: Array, other: Array, *, seed: int, draws: int = 300) -> dict[str, Several]:
    """`auroc` and `fpr95` over several wordings, each with the scores of all pictures.

    Intervals resample the pictures of either kind, wordings stay. Spreads of resamples are larger than the spread
    itself, so their percentile interval is moved until its mean is the value; limits are NaN where they do not differ.

    Shape:
        known, other (picture, wording), two pictures of a kind or more.
    """
    rng, found = np.random.default_rng(seed), dict[str, Several]()
    sets = [(known, other)]
    for _ in range(draws):
        places = [rng.integers(len(one), size=len(one)) for one in (known, other)]
        sets.append((known[places[0]], other[places[1]]))
    for name, statistic in (("auroc", auroc), ("fpr95", fpr_at)):
        rows = np.array([[statistic(*pair) for pair in zip(a.T, b.T, strict=True)] for a, b in sets])
        means, spreads = rows.mean(1), np.ptp(rows, axis=1)
        moved = (spreads[1:] - spreads[1:].mean() + spreads[0]).clip(0, 1)
        found[name] = Several(_limits(means[0], means[1:]), _limits(spreads[0], moved))
    return found


def _limits(value: float, estimates: Array) -> Interval:
    if np.ptp(estimates) <= 1e-12:
        return Interval(float(value), math.nan, math.nan)
    low, high = np.quantile(estimates, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))


def auroc(known: Scores, other: Scores) -> float:
    """Chance that a known picture scores above another one, ties counted as half."""
    below = np.sort(np.asarray(other, dtype=np.float64))
    under, up_to = (np.searchsorted(below, np.asarray(known), side) for side in ("left", "right"))
    return float(np.mean(under + up_to) / 2 / len(below))


def fpr_at(known: Scores, other: Scores, kept: float = KEPT) -> float:
    """Share of other pictures at or above the highest threshold that keeps this share of the known ones."""
    return float(np.mean(np.asarray(other) >= threshold_keeping(known, kept)))


def threshold_keeping(known: Scores, kept: float = KEPT) -> float:
    """The highest score at or above which at least this share of the known pictures lie."""
    place = math.ceil(round(kept * len(known), 9))  # 0.95 * 60 is not quite 57
    return float(np.sort(np.asarray(known, dtype=np.float64))[-max(place, 1)])


def _resampled(
    statistic: Callable[[Array, Array], float], known: Array, other: Array, seed: int, draws: int
) -> Interval:
    value = statistic(known, other)
    found: Any = bootstrap(
        (known, other), statistic, vectorized=False, method="percentile", n_resamples=draws,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    if np.ptp(found.bootstrap_distribution) > 0:
        return Interval(value, float(found.confidence_interval.low), float(found.confidence_interval.high))
    few = min(len(known), len(other))
    return wilson(int(value) * few, few) if value in (0.0, 1.0) else Interval(value, math.nan, math.nan)
