"""Privacy Meter's population attack beside privacy/membership's numbers, on the same scores of the same pairs.

    python -m venv /tmp/pm && /tmp/pm/bin/pip install --no-deps privacy_meter==1.0.1
    echo ENVIRONMENT_OF_VLMEND/lib/python3.11/site-packages > /tmp/pm/lib/python3.11/site-packages/zz_vlmend.pth
    PYTHONPATH=. python benchmarks/membership_peers.py --peer /tmp/pm/bin/python [--write]

phantom-clip learns 199 pairs by heart; of each pair of the pool the score is how much its cosine grew. Privacy Meter
takes a loss, so it gets the score with the other sign. Its attack needs pairs that it knows for non-members: every
second one, and both sides are told how well members are found among the others. Its models ask for tensorflow, which
its attack does not use: an empty module stands in for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from timing import Table, machine, write_tables

PAGE = Path(__file__).parents[1] / "docs" / "suites" / "membership.md"
EPOCHS = (1, 2, 8)
"""Passes over the pairs, from hardly remembered to known by heart."""
ALARMS = 0.01


def scores(epochs: int) -> dict[str, list[float]]:
    """How much the cosine of each pair grew: of members, of known non-members, of the other non-members."""
    from tools.phantom.clip_memory import never_shown, taught

    from vlmend.audit.separating import words_of
    from vlmend.models.dual.encoder import DualEncoder
    from vlmend.models.loading.dual import load_dual
    from vlmend.phantom.clip.load import phantom_clip

    clip, rows = load_dual(phantom_clip()), never_shown(0).examples

    def cosines(model: DualEncoder) -> torch.Tensor:
        images = model.embed_images([row.image for row in rows if row.image is not None]).double()
        return (images * model.embed_texts([words_of(row) for row in rows]).double()).sum(1)

    members = [row for row in rows if row.attributes["member"] == "yes"]
    grown = (cosines(taught(clip, members, epochs)) - cosines(clip)).tolist()
    of = {kind: [g for g, row in zip(grown, rows, strict=True) if row.attributes["member"] == kind]
          for kind in ("yes", "no")}  # fmt: skip
    return {"members": of["yes"], "known": of["no"][::2], "others": of["no"][1::2]}


def ours(found: dict[str, list[float]]) -> dict[str, float]:
    """What the suite says of these scores."""
    from vlmend.core.metrics.membership import separation

    kinds = [{str(k): [one] for k, one in enumerate(found[kind])} for kind in ("members", "others")]
    began = time.process_time()
    told = separation(*kinds, seed=0)
    return {"auroc": told.auroc.value, "tpr": told.tpr.value, "seconds": time.process_time() - began,
            "low": told.auroc.low, "high": told.auroc.high}  # fmt: skip


def theirs(found: dict[str, list[float]]) -> dict[str, float]:
    """What Privacy Meter says of them; in its own environment."""
    sys.modules.setdefault("tensorflow", ModuleType("tensorflow"))
    from privacy_meter.hypothesis_test import linear_itp_threshold_func  # pyright: ignore[reportMissingImports]
    from privacy_meter.metric import PopulationMetric  # pyright: ignore[reportMissingImports]

    began = time.process_time()
    nobody: Any = SimpleNamespace(models=())
    mapping = [(0, "train", "", "")]
    attack: Any = PopulationMetric(
        target_info_source=nobody, reference_info_source=nobody, signals=[],
        hypothesis_test_func=linear_itp_threshold_func, target_model_to_train_split_mapping=mapping,
        target_model_to_test_split_mapping=mapping, reference_model_to_train_split_mapping=mapping,
    )  # fmt: skip
    attack.member_signals, attack.non_member_signals, attack.reference_signals = (
        -np.array(found[kind]) for kind in ("members", "others", "known")
    )
    alarms = np.array([0.0, *np.arange(1, 100) / 100, 1.0])
    (told,) = attack.run_metric(alarms)
    place = int(np.argmin(np.abs(alarms - ALARMS)))
    return {"auroc": float(told.roc_auc), "tpr": float(told.tp[place]) / len(found["members"]),
            "alarms": float(told.fp[place]) / len(found["others"]), "seconds": time.process_time() - began}  # fmt: skip


def compared(peer: str) -> Table:
    """A line each."""
    lines: list[tuple[str, ...]] = []
    sizes = ""
    for epochs in EPOCHS:
        found = scores(epochs)
        own, sizes = ours(found), ", ".join(f"{len(of)} {kind}" for kind, of in found.items())
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(found, file)
            file.flush()
            said = subprocess.run([peer, __file__, "--scores", file.name], check=True, capture_output=True, text=True)
        other = json.loads(said.stdout.splitlines()[-1])
        lines += [
            (f"{epochs}", "vlmend", f"{own['auroc']:.3f} [{own['low']:.3f}, {own['high']:.3f}]", f"{own['tpr']:.3f}",
             "at most 0.010", f"{own['seconds']:.3f}, interval included"),
            (f"{epochs}", "Privacy Meter 1.0.1", f"{other['auroc']:.3f}", f"{other['tpr']:.3f}",
             f"{other['alarms']:.3f}", f"{other['seconds']:.3f}"),
        ]  # fmt: skip
    columns = ("passes", "", "AUROC", "TPR at 1 % FPR", "false alarms it had", "seconds")
    return Table("membership_peers", columns, tuple(lines), (f"phantom-clip, {sizes}, seed 0.", machine(1)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of the environment that holds privacy_meter")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--scores", type=Path, help="read by the peer's own run")
    told = parser.parse_args()
    torch.set_num_threads(1)
    if told.scores:
        print(json.dumps(theirs(json.loads(told.scores.read_text()))))
        return
    table = compared(told.peer)
    print(table.markdown)
    if told.write:
        write_tables(PAGE, [table])


if __name__ == "__main__":
    main()
