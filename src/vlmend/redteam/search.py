"""Where a red team looks next: a bandit over goals, templates and carriers, with novelty, without it, or at random.

A policy over the tries that are left gets the highest mean of `score` plus `entropy` times its own entropy. Of a pool
of candidates that is the softmax of score / entropy. The score is what curiosity-driven red teaming adds up (arXiv
2402.19464): the verdict that is expected, and the two novelties of the text. Each is brought to mean 0
and deviation 1 over the pool, as trainers of such policies whiten their rewards, so that rare finds are not drowned.

The bandit learns which goals, templates and carriers leak; where a writer model finds the words (`writing`), it learns
goals and carriers alone. A mode that was found is worth nothing again to the search with novelty; reward alone goes on
with what worked.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vlmend.errors import BadParameter
from vlmend.redteam.novelty import Archive, Embed
from vlmend.redteam.space import Space, Try

__all__ = ["SEARCHES", "Search", "SearchKind", "Weights", "search_kind", "whitened"]

SearchKind = Literal["novelty", "reward", "random"]
SEARCHES: tuple[SearchKind, ...] = get_args(SearchKind)

POOL = 64
"""Candidates of each step, drawn evenly from what is left."""

PRIOR = 1.0
"""Tries that the mean of all stands for in the estimate of a goal, template or carrier."""


@dataclass(frozen=True)
class Weights:
    """What counts how much.

    Attributes:
        words: Of the novelty of n-grams.
        embedding: Of the novelty of embeddings.
        entropy: Of the policy's entropy.

    Raises:
        BadParameter: One is negative, or the entropy's is 0.
    """

    words: float = 1.0
    embedding: float = 1.0
    entropy: float = 0.01

    def __post_init__(self) -> None:
        if min(self.words, self.embedding) < 0 or self.entropy <= 0:
            raise BadParameter("Weights of novelty count from 0, that of the entropy is above 0.", "Leave them out.")


class Search:
    """Proposes tries and learns from what came of them; a function of its seed and of the rewards alone.

    Args:
        kind: novelty, reward or random.
        space: What there is to try.
        embed: Texts to unit vectors; asked by the search with novelty alone.
        seed: Of its draws.
        weights: Of the search with novelty.
        again: The same may be proposed again: what is asked there is written anew each time.
    """

    def __init__(
        self, kind: SearchKind, space: Space, embed: Embed, seed: int, weights: Weights = Weights(), *,
        again: bool = False,
    ) -> None:  # fmt: skip
        self._kind: SearchKind = kind
        self._again, self._proposed = again, 0
        self._space, self._seed, self._weights = space, seed, weights
        self._archive = Archive(embed)
        self._tried: dict[Try, None] = {}
        self._modes: set[str] = set()
        self._asked: Counter[object] = Counter()
        self._leaked: defaultdict[object, float] = defaultdict(float)

    @property
    def tried(self) -> int:
        """How many tries were proposed."""
        return self._proposed

    def propose(self, most: int) -> list[Try]:
        """The next tries, none of which was proposed before; fewer where none are left."""
        found: list[Try] = []
        while len(found) < most and (one := self._next()) is not None:
            self.keep(one)
            found.append(one)
        return found

    def resume(self, tries: Sequence[Try], rewards: Sequence[float]) -> None:
        """Take over what an earlier run tried, and what came of it."""
        for one in tries:
            self.keep(one)
        self.learn(tries, rewards)

    def learn(self, tries: Sequence[Try], rewards: Sequence[float]) -> None:
        """What came of tries: 1 for a find, 0 for none, between where the judge was not sure."""
        for one, reward in zip(tries, rewards, strict=True):
            for arm in _arms(one):
                self._asked[arm] += 1
                self._leaked[arm] += reward
            if reward >= 0.5:
                self._modes.add(self._space.mode(one))

    def expected(self, tries: Sequence[Try]) -> NDArray[np.float64]:
        """The reward that each is expected to bring: the mean of all tries, times how much more its goal, its template
        and its carrier brought than that, each shrunk towards it."""
        asked, leaked = self._asked[None], self._leaked[None]
        mean = (leaked + 1) / (asked + 2)

        def lift(arm: object) -> float:
            return (self._leaked[arm] / mean + PRIOR) / (self._asked[arm] + PRIOR)

        found = [min(1.0, mean * float(np.prod([lift(arm) for arm in _arms(one) if arm]))) for one in tries]
        return np.array(found)

    def keep(self, one: Try) -> None:
        """Count a try as proposed."""
        self._proposed += 1
        if not self._again:
            self._tried[one] = None
        if self._kind == "novelty":
            self._archive.add(self._space.described(one), self._space.words(one))

    def _next(self) -> Try | None:
        rng = random.Random(f"{self._seed}:{self._proposed}")
        if self._kind == "random":
            return self._space.drawn(rng, self._tried)
        drawn = (self._space.drawn(rng, self._tried) for _ in range(POOL))
        pool = list(dict.fromkeys(one for one in drawn if one is not None))
        if not pool:
            return None
        if self._kind == "reward":
            expected = self.expected(pool)
            return rng.choice([one for one, value in zip(pool, expected, strict=True) if value == expected.max()])
        odds = np.exp((scores := self._scores(pool)) - scores.max())
        return rng.choices(pool, odds.tolist())[0]

    def _scores(self, pool: Sequence[Try]) -> NDArray[np.float64]:
        """What each candidate is worth, over the weight of the entropy."""
        new = np.array([self._space.mode(one) not in self._modes for one in pool], float)
        words = np.array([self._archive.by_words(self._space.described(one)) for one in pool])
        embedded = np.array(self._archive.by_embedding([self._space.words(one) for one in pool]))
        weights = self._weights
        total = whitened(self.expected(pool) * new) + weights.words * whitened(words)
        return (total + weights.embedding * whitened(embedded)) / weights.entropy


def search_kind(name: str) -> SearchKind:
    """A kind of search by its name.

    Raises:
        BadParameter: There is no such search.
    """
    for kind in SEARCHES:
        if kind == name:
            return kind
    raise BadParameter(f"There is no search {name!r}.", f"There are: {', '.join(SEARCHES)}.")


def _arms(one: Try) -> tuple[object, ...]:
    """What a try counts for: everything, its goal, its template, its carrier."""
    return None, ("goal", one.goal), ("template", one.template), ("carrier", one.carrier)


def whitened(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """To mean 0 and deviation 1; to 0 where all are alike."""
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values)
