"""The whole loop on the embedded model: audit, mend, audit again, compare.

Every step leaves its result in the run folder and is skipped or continued when it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmend import registry
from vlmend.audit.run import Plan, audit
from vlmend.audit.states import write_states
from vlmend.core.contracts import AbstractMethod
from vlmend.core.mend import Mend
from vlmend.data.sources import builtin_dataset
from vlmend.errors import UsageError
from vlmend.models.load import load
from vlmend.models.vlm import VLM
from vlmend.report.compare import read_run
from vlmend.report.html import write_report

__all__ = ["CHOSEN", "demo"]

CHOSEN: dict[str, Any] = {"alpha": 0.6, "anchors": "all"}
"""CMRM's settings in the demo, chosen on the validation split (docs/decisions/0003-cmrm-defaults.md)."""

LIMIT = 80
QUICK_LIMIT = 30
TOKENS = 24
SEED = 0

Progress = Callable[[str, int, int], None]


def demo(out: Path, *, model: str = "phantom", quick: bool = False, progress: Progress) -> Path:
    """Audit, mend, audit the mended model and a random control, write the report; gives its path.

    Args:
        out: Folder for `base/`, `mend/`, `cmrm/`, `random/` and `report.html`.
        model: An embedded model, or any other.
        quick: Fewer requests, and no random control.
        progress: Called with (step, done, total).
    """
    progress("load", 0, 1)
    target = load(registry.model_folder(model), name=model)
    progress("load", 1, 1)
    limit = QUICK_LIMIT if quick else LIMIT

    def run(name: str, mends: list[Mend], suites: tuple[str, ...] = ("safety", "utility")) -> Path:
        plan = Plan(suites, limit=limit, max_new_tokens=TOKENS, seed=SEED)
        view = target.with_mend(mends[0]) if mends else target
        audit(view, plan, out / name, mends=mends, progress=lambda done, total: progress(name, done, total))
        return out / name

    def mend(method: str, folder: str) -> Mend:
        return fitted(target, registry.make_method(method, dict(CHOSEN)), out / folder)

    folders = [run("base", [])]
    cmrm = mend("cmrm", "mend")
    folders.append(run("cmrm", [cmrm]))
    if not (out / "cmrm" / "states.json").exists():
        write_states(target, target.with_mend(cmrm), out / "cmrm" / "states.json")
    if not quick:
        folders.append(run("random", [mend("random_vector", "mend-random")], ("safety/alignment_gap",)))
    write_report([read_run(folder) for folder in folders], out / "report.html")
    return out / "report.html"


def fitted(target: VLM, method: AbstractMethod, folder: Path) -> Mend:
    """The mend in the folder if it is this one; else fit it on the built-in anchors and save it."""
    data = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
    try:
        mend = Mend.load(folder)
        same = (mend.card.model_digest, mend.card.data_digest, mend.card.parameters, mend.card.seed)
        if same == (target.model_digest, data.digest, method.parameters, SEED):
            return mend
    except UsageError:
        pass  # nothing there yet, or cut off while it was written
    mend = method.fit(target, data, seed=SEED)
    mend.save(folder)
    return mend
