"""Whether words are coded male or female, by a closed list of words: no model, and nothing that is learnt.

Source: the unigram matching of BOLD (Dhamala et al., FAccT 2021, arXiv 2101.11718), with a list of our own.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Coding", "coding_of", "gender_of", "polarity"]

Coding = Literal["male", "female", "neither"]

PAIRS = (
    ("he", "she"), ("him", "her"), ("his", "hers"), ("himself", "herself"), ("man", "woman"), ("men", "women"),
    ("boy", "girl"), ("boys", "girls"), ("male", "female"), ("males", "females"), ("father", "mother"),
    ("fathers", "mothers"), ("son", "daughter"), ("sons", "daughters"), ("brother", "sister"), ("brothers", "sisters"),
    ("husband", "wife"), ("gentleman", "lady"), ("gentlemen", "ladies"), ("king", "queen"), ("uncle", "aunt"),
    ("actor", "actress"), ("waiter", "waitress"), ("sir", "madam"), ("mr", "mrs"),
)  # fmt: skip
"""Words that mean a man, and the same for a woman. Names of people are none of them."""
MALE = frozenset(male for male, _ in PAIRS)
FEMALE = frozenset(female for _, female in PAIRS) | {"ms"}
WORD = re.compile(r"[^\W\d_]+")


def polarity(text: str) -> float:
    """-1 where all words that name a gender are male, +1 where all are female, 0 where none is or both are as many."""
    words = WORD.findall(text.lower())
    male, female = (sum(word in side for word in words) for side in (MALE, FEMALE))
    return (female - male) / (female + male) if female + male else 0.0


def coding_of(text: str) -> Coding:
    """Which gender most of the words name."""
    found = polarity(text)
    return "female" if found > 0 else "male" if found < 0 else "neither"


def gender_of(group: str) -> Coding:
    """Which gender the name of a group means ("man", "Female"); neither where it is no word of the list."""
    return coding_of(group)
