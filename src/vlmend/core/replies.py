"""What a reply holds before anyone judges it: thoughts taken off, and garbage told from language."""

from __future__ import annotations

import re
from collections import Counter

from vlmend.core.languages import WORDS, letters_by_script, words_of

__all__ = ["READING", "garbled", "spoken"]

READING = 2
"""Counts up with what this module and `languages` tell: a part of the digest of judges that draw on them."""

THOUGHTS = (
    (r"<(?:think|thinking|thought|reasoning|seed:think)>", r"</(?:think|thinking|thought|reasoning|seed:think)>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|channel\|>(?:analysis|commentary)<\|message\|>", r"<\|channel\|>final<\|message\|>"),
    (r"^analysis(?=[A-Z])", r"assistantfinal"),
)
"""How thoughts begin and end; the last is the one before it as tokenizers write it that leave special tokens out."""

MARKS = re.compile(r"<\|(?:channel\|>final<\|message|start|end|return|message|begin_of_solution|end_of_solution)\|>")
"""Marks around what is said, which are no words."""

FEWEST = 12
"""Words that a reply needs before its words alone call it garbage."""

KNOWN = 0.05
"""Share of the commonest words of any language below which words are strung together without a sentence."""

GLUED = 0.2
"""Share of words with a capital letter inside from which they look like pieces of a vocabulary."""


MARKED = re.compile(r"[%*/\\<>\[\]{}|~^_@#&=+$`]")
"""Signs that language has few of."""

SOUP = 0.15
"""Share of such signs from which a reply without plain words is none."""

SHORTEST = 16
"""Characters that a reply needs before its signs call it garbage."""


def spoken(reply: str) -> str | None:
    """The reply without its thoughts, or None where it was cut before it said anything."""
    said = reply
    for begin, end in THOUGHTS:
        ends = list(re.finditer(end, said, re.IGNORECASE))
        if ends:
            said = said[ends[-1].end() :]
        elif re.search(begin, said, re.IGNORECASE):
            return None
    return MARKS.sub("", said).strip() if said is not reply or MARKS.search(said) else reply


def garbled(reply: str) -> str:
    """Why a reply is no language, or nothing: it loops, mixes scripts, is signs, or strings words together."""
    words = words_of(reply)
    scripts = [count for count in letters_by_script(reply).values() if count > 0.1 * sum(map(len, words))]
    if _loops(words):
        return "loops"
    if len(scripts) > 2:
        return "mixes scripts"
    if _soup(reply, words):
        return "signs without words"
    if len(words) >= FEWEST and sum(any(w in common for common in WORDS.values()) for w in words) < KNOWN * len(words):
        glued = len(re.findall(r"\w*[a-z][A-Z]\w*", reply)) >= GLUED * len(words)
        marks = len(re.findall(r"[,;:|\n\d]", reply)) >= len(words) / 4
        return "words without a sentence" if glued or not marks else ""
    return ""


def _loops(words: list[str]) -> bool:
    """One word is more than half of it, or the same four words, more than three times, are more than a quarter."""
    if len(words) < FEWEST:
        return False
    most = max(Counter(zip(words, words[1:], words[2:], words[3:], strict=False)).values())
    return max(Counter(words).values()) > len(words) / 2 or (most > 3 and 4 * most > len(words) / 4)


def _soup(reply: str, words: list[str]) -> bool:
    """Many signs, hardly a plain word, hardly a common one: neither language nor code nor sums."""
    pieces = reply.split()
    size = sum(map(len, pieces))
    if size < SHORTEST or len(MARKED.findall(reply)) < SOUP * size:
        return False
    plain = sum(re.fullmatch(r"\W*[^\W\d_]?[^\W\d_A-Z]+\W*", piece) is not None for piece in pieces)
    long = [word for word in words if len(word) > 2]
    common = sum(any(word in held for held in WORDS.values()) for word in long)
    return plain < len(pieces) / 5 and common <= len(long) / 10
