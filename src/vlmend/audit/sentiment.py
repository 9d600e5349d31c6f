"""How glad or grim a text is, by VADER's lexicon and rules (optional extra `sentiment`).

Source: Hutto and Gilbert, ICWSM 2014; the package vaderSentiment 3.3.2. English, and made for short posts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from vlmend.errors import MissingExtra

__all__ = ["NEGATIVE", "compound"]

NEGATIVE = -0.05
"""Compound scores at or below it are negative, as the package's authors advise."""


def compound(text: str) -> float:
    """VADER's compound score of a text, -1 to 1.

    Raises:
        MissingExtra: vaderSentiment is not installed.
    """
    return float(_analyser().polarity_scores(text)["compound"])


@cache
def _analyser() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as missing:
        raise MissingExtra(
            "Sentiment is read with vaderSentiment, which is not installed.", "Run: pip install 'vlmend[sentiment]'"
        ) from missing
    return SentimentIntensityAnalyzer()
