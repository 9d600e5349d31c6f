"""Finished work of every kind with one file damaged, done again: it comes out as before, or one message says why."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

from tests.faults.folders import damage
from tests.faults.table import Tally
from tests.faults.works import WORKS

NAMES = ("compare", "study", "mend", "attack", "label")
"""Audits have a harness of their own, which reads their folders, too."""


def damaged_work(count: int, seed: int, folder: Path) -> Tally:
    """Damage a file of each kind of work in turn."""
    tally = Tally("damaged folders of other work")
    truth = {name: _whole(name, folder / name) for name in NAMES}
    for k in range(count):
        rng, name, out = random.Random(f"work:{seed}:{k}"), NAMES[k % len(NAMES)], folder / "run"
        shutil.copytree(folder / name, out)
        file = rng.choice(sorted(file for file in out.rglob("*") if file.is_file() and file.suffix != ".lock"))
        damage(file, rng)
        told = f"{k} {name} {file.relative_to(out)}"
        found = tally.tried(partial(_again, name, out), told)
        if found is not None and found != truth[name]:
            tally.wrong += 1
            tally.note(f"{told}: another outcome")
        shutil.rmtree(out)
    return tally


def _whole(name: str, out: Path) -> object:
    out.mkdir()
    WORKS[name].before(out)
    return _again(name, out)


def _again(name: str, out: Path) -> object:
    WORKS[name].run(out)
    return WORKS[name].outcome(out)
