"""The whole loop on the embedded model: audit, mend, audit again, compare.

Every step leaves its result in the run folder and is skipped or continued when it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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

CHOSEN = {"alpha": 1.0, "layers": "all", "mode": "increment"}
"""CMRM's settings in the demo, chosen on the validation split (docs/decisions/0003-cmrm-defaults.md)."""

LIMIT = 100
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
    plan = Plan(limit=QUICK_LIMIT if quick else LIMIT, max_new_tokens=TOKENS, seed=SEED)

    def run(name: str, view: VLM, mends: list[Mend]) -> Path:
        audit(view, plan, out / name, mends=mends, progress=lambda done, total: progress(name, done, total))
        return out / name

    folders = [run("base", target, [])]
    methods = {"cmrm": "mend"} if quick else {"cmrm": "mend", "random_vector": "mend-random"}
    for method, folder in methods.items():
        mend = fitted(target, registry.make_method(method, dict(CHOSEN)), out / folder)
        name = {"cmrm": "cmrm", "random_vector": "random"}[method]
        folders.append(run(name, target.with_mend(mend), [mend]))
        if not (folders[-1] / "states.json").exists():
            write_states(target, target.with_mend(mend), folders[-1] / "states.json")
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
