"""The whole loop on the embedded model: audit, mend, audit again, compare.

Every step leaves its result in the run folder and is skipped or continued when it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlmend import registry
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.mend import Mend
from vlmend.core.targets import check_access
from vlmend.data.sources import builtin_dataset
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target
from vlmend.models.vlm import VLM
from vlmend.report.html import write_report
from vlmend.report.shared import read_runs
from vlmend.studies.fitting import fitted
from vlmend.studies.remembering import remembering

__all__ = ["demo"]

SUITES = ("safety", "utility/picture_naming")
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
    opened = open_target(model, LoadOptions(), folder=registry.model_folder(model))
    check_access(opened, "The demo", "chat", "weights")
    assert isinstance(opened, VLM)
    target = remembering(opened)
    progress("load", 1, 1)
    limit = QUICK_LIMIT if quick else LIMIT

    def run(name: str, mends: list[Mend], suites: tuple[str, ...] = SUITES) -> Path:
        plan = Plan(suites, limit=limit, max_new_tokens=TOKENS, seed=SEED)
        view = target.with_mend(mends[0]) if mends else target

        def told(step: str, done: int, total: int) -> None:
            progress(name if step == "ask" else f"{name}: {step}", done, total)

        audit(view, plan, out / name, progress=told, reuse=[out / "base"] if mends else [])
        return out / name

    anchors = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")

    def mend(method: str, folder: str) -> Mend:
        return fitted(target, registry.make_method(method, {}), anchors, out / folder, SEED)[0]

    folders = [run("base", [])]
    cmrm = mend("cmrm", "mend")
    folders.append(run("cmrm", [cmrm]))
    if not quick:
        folders.append(run("random", [mend("random_vector", "mend-random")], ("safety/alignment_gap",)))
    write_report(read_runs(folders), out / "report.html")
    return out / "report.html"
