"""In which language a text is, by its script and, for Latin letters, its commonest words.

Enough to keep a reader of English from judging what it cannot read; a short text may be in no language that this tells.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

__all__ = ["ENGLISH", "WORDS", "language_of", "letters_by_script", "words_of"]

ENGLISH = "English"

SCRIPTS = {
    "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CYRILLIC": "Russian",
    "ARABIC": "Arabic", "HEBREW": "Hebrew", "GREEK": "Greek", "DEVANAGARI": "Hindi", "BENGALI": "Bengali",
    "TAMIL": "Tamil", "TELUGU": "Telugu", "THAI": "Thai", "GEORGIAN": "Georgian", "ARMENIAN": "Armenian",
}  # fmt: skip
"""First word of a letter's Unicode name -> the commonest language in that script."""

COMMON = {
    ENGLISH: "a the of and to in is it you that he was for on are with as i his they be at one have this from or had "
    "by not but what all were we when your can an which their if will do how them then she many some so these would "
    "him has more there could no my than who its now did down should because any me our us please sorry help it's "
    "i'm can't don't",
    "Spanish": "de la que el en y los se del las un por con una su para es al lo como más pero sus le ya o porque esta "
    "entre cuando muy sin sobre también me hasta hay puedo eso no este ayudar",
    "French": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont avec je ou "
    "son aux nous vous mais cette être peux cela votre",
    "German": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
    "er hat dass sie nach bei ich kann dabei ihnen leider wie wir nur oder",
    "Italian": "di che e la il un a per in una è sono del non con le si da della nel dei alla come più ma anche questo "
    "posso gli lo mi",
    "Portuguese": "de que e o a do da em um para com não uma os no se na por mais as dos como mas ao ele das seu sua "
    "ou quando muito nos já eu também posso isso você",
    "Dutch": "de van het een en in is dat op te zijn met voor niet die aan er om ook als dan maar ik kan bij dit "
    "worden naar heeft wij jij u",
    "Polish": "w i na z do się nie to że jest o jak ale po co tak za od przez czy tym dla może mogę",
    "Turkish": "ve bir bu için ile de da çok daha olarak olan ne gibi ama en ben sen değil var bunu üzgünüm",
    "Indonesian": "yang dan di ke dari untuk dengan ini itu tidak pada adalah saya anda akan dalam atau bisa juga",
    "Swedish": "och i att det som en på är av för med den till inte om ett han men var jag kan så du vi",
    "Vietnamese": "và của là có không cho được trong một các với này tôi bạn để người những thể",
}  # fmt: skip
"""Commonest words of languages that share Latin letters."""

WORDS = {language: frozenset(words.split()) for language, words in COMMON.items()}
FOREIGN = 0.3
"""Share of letters in other scripts from which on a text is in the language of the commonest of them."""

FEWEST = 2
"""Common words that a Latin text needs before its language is told; another than English must lead it by as many."""


def language_of(text: str) -> str:
    """The language's English name, or nothing where it cannot be told."""
    scripts = letters_by_script(text)
    every = sum(scripts.values())
    other = Counter({script: count for script, count in scripts.items() if script in SCRIPTS})
    if every and sum(other.values()) >= FOREIGN * every:
        japanese = other["HIRAGANA"] + other["KATAKANA"]
        return "Japanese" if japanese else SCRIPTS[other.most_common(1)[0][0]]
    words = words_of(text)
    hits = Counter({language: sum(word in common for word in words) for language, common in WORDS.items()})
    best, count = hits.most_common(1)[0]
    if count < FEWEST:
        return ""
    return best if count - hits[ENGLISH] >= FEWEST else ENGLISH if hits[ENGLISH] else ""


def words_of(text: str) -> list[str]:
    """The words, in lower case and with plain apostrophes."""
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower().replace("’", "'"))


def letters_by_script(text: str) -> Counter[str]:
    """How many letters there are of each script, by the first word of their Unicode names."""
    found: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        if letter.isalpha():
            found[unicodedata.name(letter, "UNKNOWN").split()[0]] += count
    return found
