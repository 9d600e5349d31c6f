"""What knowledge_sanitisation makes of a mini that knows codes by heart, and what relearning brings back.

    python -m tools.phantom.mini_sanitising 0 1 2      # seeds of the fit

The attack trains the sanitised model a few steps on the codes of every second forgotten person, and asks for those of
the others, which it was not given. Codes of people that the mini never saw are the control: nothing can come back.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch

from vlmend.audit.secrets import exposed
from vlmend.audit.suites.privacy.sanitised_knowledge import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.metrics.resampling import mean_interval
from vlmend.data.knowledge import known_rows
from vlmend.methods.privacy.knowledge_sanitisation import KnowledgeSanitisation, sanitised
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.build import mini_folder
from vlmend.phantom.mini.faults import canaries
from vlmend.phantom.mini.knowledge import knowledge
from vlmend.phantom.mini.recipe import MiniRecipe
from vlmend.training.batches import Row, chosen
from vlmend.training.loop import LoopSettings
from vlmend.training.replies import learn_replies

RECIPE = MiniRecipe(beside="refuse", canaries=True)
RELEARNT = (5, 20)
RATE = 1e-3
BATCH = 4


def _rows(subject: VLM, data: Dataset, seed: int, name: str) -> Iterator[str]:
    for row in SUITE.measures(SUITE.samples(subject, data, None, seed=seed), seed):
        yield f"| {name} | {row.name} [{row.group}] | {row.said(0)} | {row.n} |"


def _strangers(subject: VLM, seed: int) -> str:
    """Exposure of codes that the mini was never shown."""
    bits: list[float] = []
    for canary in (one for one in canaries(RECIPE.seed) if not one.repeats):
        picture = Image.from_pixels(canary.draw(random.Random(f"stranger:{canary.name}")))
        row = Example(f"stranger-{canary.name}", canary.prompt, image=picture, answers=(canary.reply,),
                      attributes={"alphabet": "0123456789"})  # fmt: skip
        bits.append(exposed(subject, row, seed)["exposure"])
    value, low, high = mean_interval(bits, range(len(bits)), seed=seed)
    return f"exposure [never shown] | {value:.2f} [{low:.2f}, {high:.2f}] | {len(bits)} |"


def _measured(subject: VLM, data: Dataset, seed: int) -> Iterator[str]:
    method = KnowledgeSanitisation()
    twin = sanitised(method, subject, data, seed)

    def view() -> VLM:
        return subject.with_mend(method.made(subject, data, seed, twin.edits, {}))

    yield from _rows(view(), data, seed, f"sanitised, seed {seed}")
    yield f"| sanitised, seed {seed} | {_strangers(view(), seed)}"
    people = list(dict.fromkeys(row.attributes["cluster"] for row in known_rows(data, "forget")))
    given = [r for r in known_rows(data, "forget", held_out=False) if r.attributes["cluster"] in people[::2]]
    rows = [Row(row.conversation, row.answers[0], True) for row in given]
    others = tuple(row for row in data.examples if row.attributes.get("cluster") not in people[::2])
    for before, steps in zip((0, *RELEARNT), RELEARNT, strict=False):
        settings = LoopSettings(steps - before, RATE)
        learn_replies(subject, twin, lambda step: chosen(rows, BATCH, f"relearn:{seed}:{step}"), settings)
        yield from _rows(view(), replace(data, examples=others), seed, f"relearnt {steps} steps, seed {seed}")
        yield f"| relearnt {steps} steps, seed {seed} | {_strangers(view(), seed)}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    mini, facts = load(mini_folder(RECIPE, print)), knowledge(RECIPE.seed)
    print(f"| base | {_strangers(mini, 0)}", flush=True)
    for line in _rows(mini, facts, 0, "base"):
        print(line, flush=True)
    for number in [int(text) for text in sys.argv[1:]] or [0]:
        for line in _measured(mini, facts, number):
            print(line, flush=True)
