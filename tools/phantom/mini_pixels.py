"""What privacy/pixel_leak finds in a mini that knows codes by heart, in one that was made to forget, and in strangers.

    python -m tools.phantom.mini_pixels

Rows are people whose codes the mini was shown 16 or 64 times; the same people after `knowledge_sanitisation` of half of
them; and people that it never saw, whose codes nothing can bring out: the control.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from vlmend.audit.suites.privacy.pixel_leak import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.knowledge import known_rows
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.build import mini_folder
from vlmend.phantom.mini.faults import canaries
from vlmend.phantom.mini.knowledge import LEAST, knowledge
from vlmend.phantom.mini.recipe import MiniRecipe
from vlmend.registry import make_method

RECIPE = MiniRecipe(beside="refuse", canaries=True)
STRANGERS = 16


def _people(known: bool) -> list[Example]:
    """A row of each person that is known by heart, or of some that were never shown."""
    told = [one for one in canaries(RECIPE.seed) if (one.repeats >= LEAST if known else not one.repeats)]
    return [
        Example(one.name, one.prompt, image=Image.from_pixels(one.draw(random.Random(f"pixels:{one.name}"))),
                answers=(one.reply,), attributes={"protected": "yes"})
        for one in (told if known else told[:STRANGERS])
    ]  # fmt: skip


def _shown(name: str, subject: VLM, rows: Sequence[Example]) -> None:
    samples = SUITE.samples(subject, Dataset(name, tuple(rows)), None, seed=0)
    for row in SUITE.measures(samples, 0):
        print(f"| {name} | {row.name} [{row.group}] | {row.said()} | by chance {row.floor:.2f} | {row.n} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    mini, facts = load(mini_folder(RECIPE, print)), knowledge(RECIPE.seed)
    known = _people(known=True)
    _shown("known by heart", mini, known)
    _shown("never shown", mini, _people(known=False))
    mend = make_method("knowledge_sanitisation", {}).fit(mini, facts, seed=0)
    gone = {row.answers[0] for row in known_rows(facts, "forget")}
    _shown("made to forget", mini.with_mend(mend), [row for row in known if row.answers[0] in gone])
