"""What an attack costs beyond the passes that it must make, beside foolbox and pyautoattack.

    python benchmarks/attacks.py                                  # phantom-clip, 16 pictures, 10 steps
    python benchmarks/attacks.py --steps 20 --rounds 9 --write docs/performance.md

The floor is as many bare forward and backward passes of the image tower and the loss, in plain transformers. All ways
run in turns in one process, on the same pixels, with the same texts and loss, from a random start. A library that is
not installed loses its row.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from timing import Case, Table, interleaved, machine, ratios, shown_ratio, write_tables
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from vlmend.attacks.robustness.apgd import APGD
from vlmend.attacks.robustness.pgd import PGD
from vlmend.attacks.running import own_pictures
from vlmend.attacks.tasks import DualTask
from vlmend.core.attacks import Budget
from vlmend.core.examples import spread
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip

EPSILON = 4 / 255
TARGET = 1.1


def main() -> None:
    """Measure, print and, where asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    table = measured(asked.steps, asked.pictures, asked.rounds)
    print(table.markdown)
    if asked.write:
        write_tables(asked.write, [table])


def measured(steps: int, count: int, rounds: int) -> Table:
    """Times of all ways on so many pictures."""
    target, data = load_dual(phantom_clip(), name="phantom-clip"), own_pictures()
    task = DualTask.of(target, data)
    rows = task.seen(spread(data.examples, count))
    pixels = task.pixels(rows)
    labels = torch.tensor([task.names.index(row.answers[0]) for row in rows])
    budget, seeds = Budget(EPSILON, steps), list(range(count))
    model: Any = target.towers.model

    def bare(values: Tensor) -> Tensor:
        """Logits in plain transformers."""
        found = model.get_image_features(pixel_values=pixels.black + values * pixels.span)
        found = found if isinstance(found, Tensor) else found.pooler_output
        return model.logit_scale.exp() * normalize(found, dim=-1) @ task.texts.T

    def passes(number: int) -> None:
        for _ in range(number):
            values = pixels.values.clone().requires_grad_()
            torch.autograd.grad(cross_entropy(bare(values), labels, reduction="sum"), values)

    assert torch.allclose(bare(pixels.values), task.target.scored(target.embed_pixels(pixels), task.texts), atol=1e-3)
    cases = [
        Case(f"{steps} bare passes", lambda: passes(steps)),
        Case("pgd", lambda: PGD().propose(task, rows, budget, seeds)),
        *_foolbox(bare, pixels.values, labels, steps),
        Case(f"{steps + 1} bare passes", lambda: passes(steps + 1)),
        Case("apgd", lambda: APGD().propose(task, rows, budget, seeds)),
        *_pyautoattack(bare, pixels.values, labels, steps),
    ]
    return _table(cases, interleaved(cases, rounds), steps, count, rounds)


def _foolbox(logits: Any, values: Tensor, labels: Tensor, steps: int) -> list[Case]:
    if not find_spec("foolbox"):
        return []
    foolbox: Any = importlib.import_module("foolbox")

    class Logits(torch.nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return logits(values)

    model = foolbox.PyTorchModel(Logits().eval(), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / steps, steps=steps)
    return [Case(f"foolbox {foolbox.__version__}", lambda: attack(model, values, labels, epsilons=EPSILON))]


def _pyautoattack(logits: Any, values: Tensor, labels: Tensor, steps: int) -> list[Case]:
    if not find_spec("pyautoattack"):
        return []
    theirs: Any = importlib.import_module("pyautoattack.autopgd_base")
    attack = theirs.APGDAttack(logits, n_iter=steps, norm="Linf", eps=EPSILON, loss="ce", device="cpu")
    attack.init_hyperparam(values)
    return [Case("pyautoattack 0.2.0", lambda: attack.attack_single_run(values, labels))]


def _table(cases: Sequence[Case], seconds: dict[str, list[float]], steps: int, count: int, rounds: int) -> Table:
    """A line for each way, against the bare passes above it."""
    floor, lines = "", []
    for case in cases:
        floor = case.name if case.name.endswith("bare passes") else floor
        lines.append(
            (case.name, f"{median(seconds[case.name]):.2f}", shown_ratio(ratios(seconds, case.name, floor)), floor)
        )
    notes = (
        f"phantom-clip, {count} pictures of 72 pixels a side, {steps} steps, epsilon 4/255. Target: at most {TARGET}.",
        machine(rounds),
    )
    return Table("attacks", ("way", "seconds", "time, ratio", "relative to"), tuple(lines), notes)


if __name__ == "__main__":
    main()
