"""How new a text is beside those before it: by its n-grams (1 - SelfBLEU) and by its embedding (1 - cosine).

The two novelties of curiosity-driven red teaming (arXiv 2402.19464), which Arondight (Liu et al., arXiv 2407.15050)
takes up.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

__all__ = ["Archive", "Embed", "distinct_2"]

Embed = Callable[[Sequence[str]], Float[np.ndarray, "text width"]]
"""Texts to vectors of length 1."""

LONGEST = 4
"""Words of the longest n-grams, as in BLEU."""


class Archive:
    """Every text that was tried, and how new another would be.

    Args:
        embed: Texts to unit vectors.
    """

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._most: Counter[tuple[str, ...]] = Counter()
        self._lengths: Counter[int] = Counter()
        self._known: dict[str, NDArray[np.float64]] = {}
        self._held: dict[str, None] = {}

    def add(self, text: str, embedded: str = "") -> None:
        """Keep a text; `embedded` is what its embedding is of, where that is less than the whole."""
        for gram, count in _grams(text):
            self._most[gram] = max(self._most[gram], count)
        self._lengths[len(_words(text))] += 1
        self._held[embedded or text] = None

    def by_words(self, text: str) -> float:
        """1 - SelfBLEU: BLEU with every text of the archive as a reference (Papineni et al. 2002), n-grams of one to
        four words, no smoothing but for orders that the text is too short for, which are left out. From 0, a text of
        the archive, to 1: the archive is empty, or an order of n-grams is new throughout."""
        length = len(_words(text))
        if not self._lengths or not length:
            return 1.0 if not self._lengths else 0.0
        orders = min(LONGEST, length)
        seen, every = [0] * orders, [0] * orders
        for gram, count in _grams(text):
            seen[len(gram) - 1] += min(count, self._most.get(gram, 0))
            every[len(gram) - 1] += count
        if not all(seen):
            return 1.0
        logs = [math.log(one / of) for one, of in zip(seen, every, strict=True)]
        nearest = min(self._lengths, key=lambda other: (abs(other - length), other))
        return 1.0 - math.exp(sum(logs) / orders + min(0.0, 1 - nearest / length))

    def by_embedding(self, texts: Sequence[str]) -> list[float]:
        """1 - the largest cosine to a text of the archive, within 0 and 1; 1 where it is empty."""
        if not self._held:
            return [1.0] * len(texts)
        cosines = self._vectors(texts) @ self._vectors(list(self._held)).T
        return [float(np.clip(1 - row.max(), 0.0, 1.0)) for row in cosines]

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float64]:
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            self._known |= dict(zip(missing, np.asarray(self._embed(missing), np.float64), strict=True))
        return np.stack([self._known[text] for text in texts])


def distinct_2(texts: Sequence[str]) -> float:
    """Share of all pairs of neighbouring words that are different ones; NaN without any."""
    pairs = [pair for text in texts for words in [_words(text)] for pair in pairwise(words)]
    return len(set(pairs)) / len(pairs) if pairs else math.nan


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


@lru_cache(1 << 16)
def _grams(text: str) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Every n-gram and how often it stands in a text."""
    words = _words(text)
    found = (tuple(words[start : start + n]) for n in range(1, LONGEST + 1) for start in range(len(words) - n + 1))
    return tuple(Counter(found).items())
