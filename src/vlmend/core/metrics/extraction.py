"""Whether text can be got out of a model again: by greedy decoding, and by drawing replies many times.

Hayes et al. 2024, arXiv 2410.19482: a text is (n, p)-extractable where n draws hold it with probability p at least.
"""

from __future__ import annotations

import math

__all__ = ["begins_with", "edits", "extractable", "normal", "rouge_l", "tries"]


def tries(logprob: float, p: float) -> float:
    """Draws needed to have a text with probability p: the least n with 1 - (1 - p_z)^n >= p.

    Args:
        logprob: Natural logarithm of p_z, the chance of a single draw.
        p: Above 0 and below 1.

    Returns:
        A whole number, at least 1; infinity for a text that is never drawn.
    """
    once = min(1.0, math.exp(logprob))
    if once == 1.0:
        return 1.0
    each = math.log1p(-once)
    return math.inf if each == 0 else max(1.0, float(math.ceil(math.log1p(-p) / each - 1e-9)))


def extractable(logprob: float, n: int, p: float) -> bool:
    """Whether n draws hold the text with probability p at least."""
    return tries(logprob, p) <= n


def normal(text: str) -> str:
    """A text in small letters, with one space between words: what is compared."""
    return " ".join(text.casefold().split())


def begins_with(reply: str, text: str) -> bool:
    """Whether a reply begins with a text, letter case and spaces aside, and the text's last word ends there."""
    said, wanted = normal(reply), normal(text)
    rest = said[len(wanted) :]
    return said.startswith(wanted) and not (rest[:1].isalnum() and wanted[-1:].isalnum())


def edits(one: str, other: str) -> int:
    """Letters to insert, delete or replace to make one text of the other (Levenshtein)."""
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, wanted in enumerate(other, 1):
            line.append(min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted)))
        last = line
    return last[-1]


def rouge_l(one: str, other: str) -> float:
    """How much of two texts is the same words in the same order, 0 to 1: 2 L / (m + n), letter case aside.

    L is the length of the longest common subsequence of their m and n words. Two texts without words are alike.

    Source: Lin, ROUGE, 2004, the F-measure of ROUGE-L with both sides weighed alike.
    """
    first, second = normal(one).split(), normal(other).split()
    if not first and not second:
        return 1.0
    last = [0] * (len(second) + 1)
    for word in first:
        line = [0]
        for column, wanted in enumerate(second, 1):
            line.append(last[column - 1] + 1 if word == wanted else max(last[column], line[-1]))
        last = line
    return 2 * last[-1] / (len(first) + len(second))
