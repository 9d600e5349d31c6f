"""What the ranking of one query shows of groups: bias, skew and divergence of the first k, each with its floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from vlmend.audit.means import FLOOR
from vlmend.core.metrics.skew import bias_at, count_law, dealt, mean_under, ndkl, shares_of, skews_at

__all__ = ["Ranking"]

DRAWS = 100
"""Dealings of the groups behind the floors that have no exact law."""


@dataclass(frozen=True)
class Ranking:
    """The gallery in the order of one query.

    Attributes:
        groups: Of the pictures, best first.
        strata: What each picture shows; chance deals groups within it.
        k: How many of the first are looked at.
        toward: Of two groups, the one that counts as positive; empty where neither does.
    """

    groups: tuple[str, ...]
    strata: tuple[str, ...]
    k: int
    toward: str = ""

    def values(self) -> dict[str, float]:
        """Every measure of the first k and its floor; Bias@k where there are two groups and one is positive."""
        found: dict[str, float] = {}
        for name, measure in self._measures().items():
            found |= {name: measure(self.groups[: self.k]), name + FLOOR: self._chance(measure)}
        found["ndkl"] = ndkl(self.groups, self._desired)
        found["ndkl" + FLOOR] = float(np.mean([ndkl(row, self._desired) for row in self._dealt]))
        return found

    def _measures(self) -> dict[str, Callable[[Sequence[str]], float]]:
        skews = partial(skews_at, k=self.k, desired=self._desired)
        found: dict[str, Callable[[Sequence[str]], float]] = {
            f"max_skew_at_{self.k}": lambda first: max(skews(first).values()),
            f"min_skew_at_{self.k}": lambda first: min(skews(first).values()),
        }
        if len(self._desired) == 2 and self.toward:
            against = next(group for group in self._desired if group != self.toward)
            bias = partial(bias_at, k=self.k, toward=self.toward, against=against)
            name = f"bias_at_{self.k}"
            found |= {name: bias, f"abs_{name}": lambda first: abs(bias(first))}
        return found

    def _chance(self, measure: Callable[[Sequence[str]], float]) -> float:
        """The mean of a measure where groups are dealt: exact with two groups, else from draws."""
        if len(self._desired) > 2:
            return float(np.mean([measure(row[: self.k]) for row in self._dealt]))
        first, second = self._desired
        held = Counter(zip(self.strata, self.groups, strict=True))
        pairs = {stratum: (held[stratum, first], held[stratum, second]) for stratum in self.strata}
        return mean_under(count_law(Counter(self.strata[: self.k]), pairs), measure, first, second)

    @cached_property
    def _desired(self) -> dict[str, float]:
        """The gallery's own shares."""
        return shares_of(self.groups)

    @cached_property
    def _dealt(self) -> list[list[str]]:
        return dealt(self.groups, self.strata, seed=0, draws=DRAWS)
