"""What dp_captions makes of phantom-mini at several promises: what it learns, what it costs, what it gives away.

    python -m tools.phantom.mini_private none 8 2      # promises, seed 0

phantom-mini was never asked for sizes and never shown a canary. It learns both: whether a thing is big or small, and
the codes of 32 made-up people, eight of them 1, 4, 16 and 64 times. Two attacks rank each code among 256: by how
likely it is, and by how much likelier it grew, for whoever has the model before as well.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator

import torch
from torch import Generator

from vlmend.audit.secrets import MOST
from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.metrics.exposure import alternatives, exposure
from vlmend.core.metrics.resampling import mean_interval
from vlmend.methods.privacy.dp_captions import DpCaptions, caption_rows
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.build import phantom_mini
from vlmend.phantom.mini.manifest import manifest
from vlmend.phantom.mini.questions import questions
from vlmend.phantom.mini.sizes import sized_questions
from vlmend.training.private import ledger_for

STEPS, BATCH, RATE = 100, 96, 1e-2
SIZES = 700
"""Things whose size is learnt, each on two grounds."""
TOKENS = 8


def learnt() -> Dataset:
    """Sizes of things of the split train, and each canary as often as it is shown."""
    copies = [
        Example(f"{row.id}-{k}", row.prompt, image=row.image, answers=row.answers)
        for row in manifest().examples
        for k in range(int(row.attributes["repeats"]))
    ]
    return Dataset("sizes and canaries", (*sized_questions("train", SIZES).examples, *copies))


def _right(view: VLM, data: Dataset) -> str:
    rows = data.examples
    said = [r.text for k in range(0, len(rows), 32) for r in
            view.generate([row.conversation for row in rows[k : k + 32]], Sampling(TOKENS))]  # fmt: skip
    hits = [float(text.strip() == row.answers[0]) for row, text in zip(rows, said, strict=True)]
    value, low, high = mean_interval(hits, [row.attributes.get("of", row.id) for row in rows], seed=0)
    return f"{value:.0%} [{low:.0%}, {high:.0%}] | {len(rows)}"


def _codes(view: VLM) -> dict[str, list[float]]:
    """Log-probabilities of each canary's own code, then of others, the same for every view."""
    found: dict[str, list[float]] = {}
    for row in manifest().examples:
        rng = random.Random(f"private:{row.id}")
        codes = [row.answers[0], *alternatives(row.answers[0], row.attributes["alphabet"], MOST, rng)]
        told = view.logprobs([row.conversation] * len(codes), codes)
        found[row.id] = [float(one.double().sum()) for one in told]
    return found


def _leaks(before: dict[str, list[float]], after: dict[str, list[float]]) -> Iterator[str]:
    for attack in ("likelihood", "growth"):
        bits: dict[int, list[float]] = {}
        for row in manifest().examples:
            seen = [b - a * (attack == "growth") for a, b in zip(before[row.id], after[row.id], strict=True)]
            bits.setdefault(int(row.attributes["repeats"]), []).append(exposure(seen[0], seen[1:]))
        for count, each in sorted(bits.items()):
            value, low, high = mean_interval(each, range(len(each)), seed=0)
            yield f"exposure by {attack}, shown {count} times | {value:.2f} [{low:.2f}, {high:.2f}] | {len(each)}"


def _view(mini: VLM, promise: str, seed: int) -> VLM:
    """The mini after the training, with or without a promise, on the same batches."""
    rows = caption_rows(learnt())
    epsilon = math.inf if promise == "none" else float(promise)
    method = DpCaptions(steps=STEPS, batch=BATCH, rate=RATE)
    sampling, noise, clip = BATCH / len(rows), 0.0, math.inf
    if promise != "none":
        noise, clip = ledger_for(epsilon, method.delta, sampling, STEPS).noise, method.clip
    began = time.process_time()
    twin = method.trained(mini, rows, noise, clip, sampling, seed, Generator().manual_seed(seed))
    parameters = sum(parameter.numel() for parameter in twin.parameters)
    print(f"| {promise} | noise {noise:.3f}, {len(rows)} rows, {parameters} parameters, "
          f"{time.process_time() - began:.0f} s |", flush=True)  # fmt: skip
    return mini.with_mend(method.made(mini, learnt(), seed, twin.edits, {}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    mini = load(phantom_mini())
    before = _codes(mini)
    for promise in ("base", *(sys.argv[1:] or ("none", "8"))):
        view = mini if promise == "base" else _view(mini, promise, 0)
        print(f"| {promise} | sizes right | {_right(view, sized_questions('held_out', 150))} |", flush=True)
        print(f"| {promise} | scenes right | {_right(view, questions(150))} |", flush=True)
        for line in _leaks(before, before if promise == "base" else _codes(view)):
            print(f"| {promise} | {line} |", flush=True)
