"""Does a second modality protect what a model was trained on? Two models held against each other at equal utility.

A model that is trained less gives away less, and one that sees more needs less training, so attack scores after the
same number of steps compare two utilities. Here each model is a path of checkpoints, and what it gives away is read
where it first does its task as well as the weaker of the two at its best, or a share of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from vlmend.core.metrics.stats import Interval
from vlmend.errors import BadParameter

__all__ = ["Path", "at_utility", "difference_at_end", "difference_at_utility"]


@dataclass(frozen=True)
class Path:
    """One training, from the untrained model on.

    Attributes:
        utility: Of each checkpoint, higher is better (accuracy on records that neither training nor attack has).
        leak: What an attack reaches there (AUROC of membership).
    """

    utility: tuple[float, ...]
    leak: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.utility) == len(self.leak) > 1:
            raise BadParameter("A path has a utility and a leak for each of two or more checkpoints.", "Give both.")


def at_utility(path: Path, wanted: float) -> float:
    """The leak where the utility first reaches `wanted`, between two checkpoints in proportion to the utility.

    Raises:
        BadParameter: It never does.
    """
    for k, (utility, leak) in enumerate(zip(path.utility, path.leak, strict=True)):
        if utility >= wanted:
            if k == 0:
                return leak
            before, was = path.utility[k - 1], path.leak[k - 1]
            return was + (leak - was) * (wanted - before) / (utility - before)
    raise BadParameter(f"The utility {wanted} is above {max(path.utility)}, the best of the path.", "Ask for less.")


def difference_at_utility(first: Sequence[Path], second: Sequence[Path], share: float) -> tuple[list[float], Interval]:
    """How much more the second gives away than the first, each pair of paths at its own equal utility.

    Args:
        first, second: One path a seed; those of one place have the same records.
        share: Of the way from where the paths begin, the higher of the two, to the lower of their bests.

    Returns:
        The difference of each seed, and their mean with Student's 95 % interval over seeds; NaN limits without spread.

    Raises:
        BadParameter: A share outside 0 to 1, or different numbers of paths.
    """
    if not 0 <= share <= 1:
        raise BadParameter(f"share={share} is none.", "Use 0 to 1.")
    found: list[float] = []
    for one, other in _paired(first, second):
        start = max(one.utility[0], other.utility[0])
        best = min(max(one.utility), max(other.utility))
        wanted = start + share * max(0.0, best - start)
        found.append(at_utility(other, min(wanted, best)) - at_utility(one, min(wanted, best)))
    return found, _mean(found)


def difference_at_end(first: Sequence[Path], second: Sequence[Path]) -> tuple[list[float], Interval]:
    """The same after the last checkpoint of both, whatever each is worth by then."""
    found = [other.leak[-1] - one.leak[-1] for one, other in _paired(first, second)]
    return found, _mean(found)


def _paired(first: Sequence[Path], second: Sequence[Path]) -> list[tuple[Path, Path]]:
    if len(first) != len(second):
        raise BadParameter(f"{len(first)} and {len(second)} paths are not paired.", "Give one of each for each seed.")
    return list(zip(first, second, strict=True))


def _mean(values: Sequence[float]) -> Interval:
    value = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(value, math.nan, math.nan)
    found: Any = ttest_1samp(values, 0.0)
    low, high = found.confidence_interval(0.95)
    return Interval(value, float(low), float(high))
