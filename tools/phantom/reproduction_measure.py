"""privacy/reproduction of phantom-clip taught by heart for more and more passes: does the score rise with them?

python -m tools.phantom.reproduction_measure [RUN]      # RUN: an audit of phantom-draw by privacy/generator_copies
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

from tools.phantom.clip_memory import never_shown, taught
from vlmend.audit.suites.privacy.reproduction import SUITE, from_copies
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset
from vlmend.core.measures import Measure
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip

PASSES = (0, 1, 5, 25)


def dealt(seed: int) -> Dataset:
    """The pairs that phantom-clip never saw, half of them members by chance."""
    rows = sorted(never_shown().examples, key=lambda row: row.id)
    members = set(random.Random(f"reproduction:{seed}").sample([row.id for row in rows], len(rows) // 2))
    told = (replace(row, attributes={**row.attributes, "member": "yes" if row.id in members else "no"}) for row in rows)
    return Dataset("dealt", tuple(told))


def _shown(name: str, rows: list[Measure]) -> None:
    for row in rows:
        print(f"{name}: {row.name} [{row.group}] {row.said(0)} n {row.n}, by chance {row.floor:.3f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        lines = (Path(sys.argv[1]) / "measured.jsonl").read_text().splitlines()
        found = [Sample(**one) for line in lines for one in json.loads(line)["samples"]]
        _shown("phantom-draw", SUITE.measures(from_copies(found), 0))
    clip = load_dual(phantom_clip())
    for seed in range(3):
        data = dealt(seed)
        learnt = [row for row in data.examples if row.attributes["member"] == "yes"]
        for passes in PASSES:
            model = taught(clip, learnt, passes, seed) if passes else clip
            _shown(f"seed {seed}, {passes} passes", SUITE.measures(SUITE.samples(model, data, None, seed=0), 0))
