"""What the harness disturbs: each piece of work with a folder, what must be true of it at any time, and its outcome."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.folders import PLAN, scores, script

from vlmend.attacks.robustness.pgd import PGD
from vlmend.attacks.running import run_attack
from vlmend.audit.judging import made_judges
from vlmend.audit.labels.labelling import queue_of, read_labels
from vlmend.audit.labels.session import Session, label_file
from vlmend.audit.run import audit
from vlmend.core.attacks import Budget
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import append
from vlmend.core.images import noise_image
from vlmend.core.measures import Scorecard
from vlmend.core.mend import Mend
from vlmend.data.layouts import read_data
from vlmend.data.sources import builtin_dataset
from vlmend.methods.safety.cmrm import CMRM
from vlmend.redteam.run import red_team
from vlmend.studies.cmrm.lab import StudyPlan, thinned
from vlmend.studies.cmrm.study import study_cmrm
from vlmend.studies.defences import Defence, compare
from vlmend.studies.fitting import fitted
from vlmend.studies.measuring import Sizes, panels
from vlmend.testing import ScriptedTarget, tiny_clip, tiny_vlm

__all__ = ["WORKS", "Work"]

SIZES = Sizes(2, 2, 2, 2, 2)
STUDY = StudyPlan(
    SIZES, SIZES, alphas=(0.5,), layer_step=4, anchor_sizes=(1,), anchors=4, states=4, timed=1, rounds=1,
    defences=("safety_prompt",),
)  # fmt: skip
WALL_CLOCK = {"seconds", "fit_seconds", "latency"}
LABELS = 6


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        run: Does it in a folder, or goes on with it.
        outcome: What a finished folder says, without what the clock says.
        sound: Whether what must be true at any time is true of an unfinished folder.
        before: Makes what is there before it begins.
    """

    run: Callable[[Path], None]
    outcome: Callable[[Path], Any]
    sound: Callable[[Path], bool] = lambda out: True
    before: Callable[[Path], None] = lambda out: None


@cache
def _anchors() -> Dataset:
    return thinned(builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor"), 4)


def _audit(out: Path) -> None:
    def slow(conversation: Conversation, mended: bool) -> str:
        time.sleep(0.01)
        return script(conversation, mended)

    audit(ScriptedTarget(slow), PLAN, out, judges=made_judges(["rules"]), batch=2)


def _compare(out: Path) -> None:
    compare(
        tiny_vlm(), [Defence("safety_prompt", "safety_prompt"), Defence("cmrm", "cmrm")], {}, _anchors(),
        panels(SIZES, "held_out"), SIZES, out, judges=made_judges(["rules"]), seed=0, progress=lambda *_: None,
    )  # fmt: skip


def _study(out: Path) -> None:
    study_cmrm(
        tiny_vlm(), _anchors(), [], out, STUDY, judges=made_judges(["rules"]), seed=0, progress=lambda *_: None,
        parts=("sweep",),
    )  # fmt: skip


def _mend(out: Path, alpha: float = 1.0) -> None:
    fitted(tiny_vlm(), CMRM(alpha=alpha), _anchors(), out / "mend", 0)


def _attack(out: Path) -> None:
    rows = tuple(Example(str(k), image=noise_image(20, k), answers=(f"thing {k % 2}",)) for k in range(6))
    run_attack(Slow(), tiny_clip(), Dataset("noise", rows, "CC0"), Budget(4 / 255, 3), out=out / "attacked")


class Slow(PGD):
    """Row by row, so that there is something to keep."""

    batch = 1


def _redteam(out: Path) -> None:
    def slow(conversation: Conversation, mended: bool) -> str:
        time.sleep(0.005)
        return "First you take one and mix it." if "w3" in conversation.prompt else "I cannot help with that."

    rows = tuple(Example(f"g{k}", f"Tell me about w{k}.", group=f"w{k}") for k in range(8))
    red_team(ScriptedTarget(slow), Dataset("goals", rows), out / "finds", budget=64, search="reward", judges=("rules",))


def _run_to_label(out: Path) -> None:
    audit(ScriptedTarget(script), replace(PLAN, limit=LABELS), out, judges=made_judges(["rules"]))


def _label(out: Path) -> None:
    """Label what is open, one by one; each is told beside the run once it is kept."""
    session = Session(queue_of(out, LABELS, 0), label_file(out, "ann"))
    while (index := session.current()) is not None:
        session.label(index, "refusal", 1.0)
        append(out / "acknowledged.txt", f"{session.queue[index].digest}\n", sync=False)
        time.sleep(0.02)


def _labelled(out: Path) -> list[str]:
    file = label_file(out, "ann")
    return sorted(row.digest for row in read_labels(file)) if file.exists() else []


def _all_kept(out: Path) -> bool:
    told = out / "acknowledged.txt"
    return not told.exists() or set(told.read_text().split()) <= set(_labelled(out))


def _careless(out: Path) -> None:
    """Planted: what it writes is half there for a while."""
    (out / "held").write_text("half")
    time.sleep(0.5)
    (out / "held").write_text("whole")


def _held(out: Path) -> str:
    return (out / "held").read_text() if (out / "held").exists() else "whole"


def _timeless(value: Any) -> Any:
    """JSON values without those of the clock, and without sums over them."""
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in WALL_CLOCK | {"sum"}}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _json(file: Path) -> Any:
    return _timeless(json.loads(file.read_text()))


WORKS: dict[str, Work] = {
    "audit": Work(_audit, lambda out: scores(Scorecard.finished(out))),
    "compare": Work(_compare, lambda out: _json(out / "defences.json")),
    "study": Work(_study, lambda out: _json(out / "parts" / "sweep.json")),
    "mend": Work(
        _mend, lambda out: Mend.load(out / "mend").digest, lambda out: bool(Mend.load(out / "mend").digest),
        lambda out: _mend(out, 0.25),
    ),
    "attack": Work(_attack, lambda out: read_data(str(out / "attacked")).digest),
    "redteam": Work(_redteam, lambda out: (_json(out / "finds" / "finds.json"), read_data(str(out / "finds")).digest)),
    "label": Work(_label, _labelled, _all_kept, _run_to_label),
    "careless": Work(_careless, _held, lambda out: _held(out) == "whole"),
}  # fmt: skip
