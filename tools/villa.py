"""What `villa` makes of phantom-mini beside plain tuning and random directions, as a table in Markdown.

    python -m tools.villa [--seeds 0,1,2] [--reach 0.02]

All are tuned on the same questions about scenes and sizes of the split `train`, and asked about those of `held_out`:
as they are, with each of a question's words left out with a chance of 0.3, with noise on the pixels, and under PGD.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image as Pillow

from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.contracts import AbstractMethod
from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.metrics.stats import wilson
from vlmend.methods.robustness.villa import Villa
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.build import phantom_mini
from vlmend.phantom.mini.questions import questions
from vlmend.phantom.mini.sizes import sized_questions
from vlmend.registry import make_attack, make_method

__all__ = ["measured", "settings"]

SCENES, SIZES = 160, 48
"""Questions to tune on: about scenes, and pictures of sizes, each on two grounds."""
ASKED, ATTACKED = 300, 100
"""Held-out questions of each kind, and how many of those about scenes are attacked."""
LEFT_OUT, NOISE = 0.3, 64
"""Chance of a word to go, and standard deviation of the noise in levels of 255."""
EPSILON, STEPS = 8 / 255, 10
BATCH, LONGEST = 100, 14

Counts = Mapping[str, tuple[int, int]]


def settings(reach: float) -> Mapping[str, AbstractMethod[Any]]:
    """The three ways of tuning; all but the adversary is the same."""
    same = {"steps": 80, "batch": 16, "rate": 1e-3, "reach": reach}
    other = {"plain": {"rounds": 1}, "random directions": {"direction": "random"}, "villa": {}}
    return {name: make_method("villa", {**same, **own}) for name, own in other.items()}


def measured(view: VLM) -> Counts:
    """How many of each kind are answered word for word, and how many were asked."""
    scenes, sizes = list(questions(ASKED).examples), list(sized_questions("held_out", ASKED // 2).examples)
    exam = {
        "scenes": scenes,
        "scenes, words left out": _changed(scenes, _shorter),
        "scenes, noise": _changed(scenes, _noisy),
        "sizes": sizes,
        "sizes, noise": _changed(sizes, _noisy),
    }
    found = {name: (_right(view, rows), len(rows)) for name, rows in exam.items()}
    some = Dataset("scenes", tuple(scenes[:ATTACKED]))
    attacked = make_attack("pgd", {}).run(view, some, Budget(EPSILON, STEPS), seed=0, limit=None).examples
    right = [attributes_of_attack(row)["attacked"] == "right" for row in attacked]
    return {**found, f"scenes, pgd {EPSILON * 255:.0f}/255": (sum(right), len(right))}


def _right(view: VLM, rows: Sequence[Example]) -> int:
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    said = [one for part in parts for one in view.generate([row.conversation for row in part], Sampling(LONGEST))]
    return sum(one.text.strip() == row.answers[0] for one, row in zip(said, rows, strict=True))


def _changed(rows: Sequence[Example], change: Callable[[Example, random.Random], Example]) -> list[Example]:
    return [change(row, random.Random(f"villa:{row.id}")) for row in rows]


def _shorter(row: Example, rng: random.Random) -> Example:
    """Without some of its words; those that the answer restates stay, since no other says what is asked for."""
    restated = row.answers[0].split()
    kept = [word for word in row.prompt.split() if word.strip("?.") in restated or rng.random() >= LEFT_OUT]
    return replace(row, prompt=" ".join(kept) or row.prompt)


def _noisy(row: Example, rng: random.Random) -> Example:
    assert row.image is not None
    pixels = np.asarray(row.image.decode()).astype(float)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, NOISE, pixels.shape)
    return replace(row, image=Image.from_pixels(Pillow.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))))


def _table(seeds: Sequence[int], reach: float) -> Iterator[str]:
    base = load(phantom_mini(), name="phantom-mini", options=LoadOptions("cpu"))
    data = Dataset(
        "scenes and sizes", (*questions(SCENES, "train").examples, *sized_questions("train", SIZES).examples)
    )
    before = measured(base)
    yield f"|  | {' | '.join(before)} | seconds |"
    yield "| --- " * (len(before) + 2) + "|"
    yield _line("phantom-mini", before, "")
    for name, method in settings(reach).items():
        for seed in seeds:
            began = time.monotonic()
            mend = method.fit(base, data, seed=seed)
            yield _line(f"{name}, seed {seed}", measured(base.with_mend(mend)), f"{time.monotonic() - began:.0f}")


def _line(name: str, counts: Counts, seconds: str) -> str:
    shares = [wilson(*count) for count in counts.values()]
    return (
        f"| {name} | {' | '.join(f'{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]' for one in shares)} | {seconds} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--reach", type=float, default=Villa().reach)
    given = parser.parse_args()
    for line in _table([int(one) for one in given.seeds.split(",")], given.reach):
        print(line, flush=True)
