"""Whether a reply is one of the right answers: word for word, or among other words."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["holds", "plain", "same"]

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
YES_NO = frozenset({"yes", "no"})


def plain(text: str) -> str:
    """In lower case, without punctuation and articles, numbers as digits, as VQA's accuracy compares answers.

    Source: Agrawal et al., VQA, ICCV 2015, arXiv 1505.00468.
    """
    words = re.findall(r"\w+", text.lower().replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", ""))
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in words if word not in ARTICLES)


def same(reply: str, answers: Iterable[str]) -> bool:
    """The strict match: the reply is an answer and nothing else."""
    return plain(reply) in {plain(answer) for answer in answers}


def holds(reply: str, answers: Iterable[str]) -> bool:
    """The lenient match: an answer stands in the reply as whole words, or as their plural.

    Of yes and no the first counts. An answer that stands beside wrong ones counts too.
    """
    said = plain(reply)
    return same(reply, answers) or any(_stands_in(said, plain(answer)) for answer in answers)


def _stands_in(said: str, answer: str) -> bool:
    if answer in YES_NO:
        first = next((word for word in said.split() if word in YES_NO), "")
        return first == answer
    return bool(answer) and re.search(rf"\b{re.escape(answer)}(?:e?s)?\b", said) is not None
