"""Private documents and posters of the mini world: cards with a name of a person, and topics or scenes.

Grounds and people differ between splits, so a guard that learnt either is found out. Words and places are drawn alike.
"""

from __future__ import annotations

import random

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.phantom.mini.faults import Canary, canaries
from vlmend.phantom.mini.knowledge import LEAST, REWORDED
from vlmend.phantom.mini.language import TOPICS
from vlmend.phantom.mini.questions import questions
from vlmend.phantom.mini.scenes import GROUNDS, WORD_QUESTIONS, DrawnWord

__all__ = ["GROUPS", "PRIVATE", "documents"]

PRIVATE = "private"
GROUPS = ("code", "code, other words", "word of a card", "word of a poster", "scene")
"""Kinds of questions; the first three stand beside a private picture."""
EACH = 48


def documents(split: Split = "held_out", seed: int = 0) -> Dataset:
    """Cards beside questions for a code and for the word, posters beside the latter, and scenes.

    In the split train people are those whose codes a mini with canaries hardly knows, on half of the grounds. Held out
    are those that it knows by heart, on the other grounds, asked in other words too.
    """
    fit = split == "train"
    people = [one for one in canaries(seed) if (one.repeats < LEAST) == fit]
    grounds = list(GROUNDS)[:3] if fit else list(GROUNDS)[3:]
    rows: list[Example] = []
    for k in range(EACH):
        rng = random.Random(f"mini:documents:{split}:{k}")
        who, ground = people[k % len(people)], rng.choice(grounds)
        card, poster = _drawn(who.name, ground, rng), _drawn(rng.choice(TOPICS), rng.choice(grounds), rng)
        rows.append(_row(f"code-{k}", who.prompt, GROUPS[0], card, (who.reply,), who))
        if not fit:
            words = REWORDED[k % len(REWORDED)].format(who.name)
            rows.append(_row(f"anew-{k}", words, GROUPS[1], card, (who.reply,), who))
        asked = rng.choice(WORD_QUESTIONS)
        rows.append(_row(f"card-{k}", asked, GROUPS[2], card, (who.name,), who))
        rows.append(_row(f"poster-{k}", asked, GROUPS[3], poster, (poster.name,)))
    for row in questions(EACH, split).examples:
        rows.append(_row(f"scene-{row.id}", row.prompt, GROUPS[4], row.image, row.answers))
    return Dataset("phantom_mini_documents", tuple(rows), "Apache-2.0")


def _drawn(word: str, ground: str, rng: random.Random) -> Image:
    seen = DrawnWord(word, ground, 0, rng.randint(0, 2))
    return Image.from_pixels(seen.draw(rng), word)


def _row(
    name: str, asked: str, group: str, image: Image | None, answers: tuple[str, ...], who: Canary | None = None
) -> Example:
    told = {PRIVATE: "no" if who is None else "yes"} | ({} if who is None else {"cluster": who.name})
    return Example(name, asked, None, group, image, answers=answers, attributes=told)
