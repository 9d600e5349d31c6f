"""What privacy costs a step of training: dp_captions on phantom-mini beside plain training; target 2 times.

    python benchmarks/private_training.py                 # the table, on standard output
    python benchmarks/private_training.py --write         # ... and into the page of dp_captions

The same rows, adapter and optimiser. Seconds are those of the processor, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from timing import Case, Table, interleaved, machine, ratios, shown_ratio, write_tables

from vlmend.core.examples import Dataset
from vlmend.methods.privacy.dp_captions import DpCaptions, caption_rows, private_step
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.questions import questions
from vlmend.phantom.shelf import put_together
from vlmend.training.batches import Row
from vlmend.training.private import rows_apart
from vlmend.training.replies import loss_of_rows
from vlmend.training.twin import twin_of

PAGE = Path(__file__).parents[1] / "docs" / "methods" / "dp_captions.md"
BATCH, STEPS = 32, 2
"""Rows of a step, and steps of a round."""
TARGET = 2
PLAIN, APART, PRIVATE = "plain", "gradients of rows, neither clipped nor noisy", "clipped and noisy (dp_captions)"


def case(name: str, mini: VLM, rows: list[Row]) -> Case:
    """One way to train, on a twin of its own that lasts over all rounds."""
    twin = twin_of(mini, "decoder", rank=DpCaptions().rank, seed=0)
    optimiser = torch.optim.Adam(twin.parameters, lr=1e-3)
    draws = torch.Generator().manual_seed(0)

    def plain() -> None:
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss_of_rows(mini, twin, rows).backward()
            optimiser.step()

    def apart(clip: float, noise: float) -> None:
        for _ in range(STEPS):
            found = private_step(mini, twin, rows, len(rows), clip, noise, draws)
            for parameter, gradient in zip(twin.parameters, found, strict=True):
                parameter.grad = gradient
            optimiser.step()

    work: dict[str, Callable[[], None]] = {
        PLAIN: plain, APART: lambda: apart(math.inf, 0.0), PRIVATE: lambda: apart(1.0, 1.0),
    }  # fmt: skip
    return Case(name, work[name]) if name == PLAIN else Case(name, work[name], lambda: rows_apart(twin.model))


def timed(rounds: int) -> Table:
    """Seconds a step of each way."""
    mini = load(put_together("phantom-mini"), name="phantom-mini", options=LoadOptions("cpu"))
    rows = caption_rows(Dataset("scenes", questions(BATCH, "train").examples))
    seconds = interleaved([case(name, mini, rows) for name in (PLAIN, APART, PRIVATE)], rounds, time.process_time)
    lines = tuple(
        (name, f"{median(seconds[name]) / STEPS:.3f}", shown_ratio(ratios(seconds, name, PLAIN)))
        for name in (PLAIN, APART, PRIVATE)
    )
    about = f"phantom-mini, {BATCH} rows a step, an adapter of rank {DpCaptions().rank}. Target: {TARGET} times."
    return Table("private_training", ("training", "seconds a step", "time, ratio"), lines, (about, machine(rounds)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(1)
    table = timed(told.rounds)
    print(table.markdown)
    if told.write:
        write_tables(PAGE, [table])


if __name__ == "__main__":
    main()
