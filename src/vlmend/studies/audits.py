"""Many mends of a dual encoder side by side: each is fitted, and audited by the same suites as the model without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.examples import Dataset
from vlmend.core.files import held, write_json
from vlmend.core.mend import Mend
from vlmend.core.metrics.paired import Paired
from vlmend.core.targets import DualTarget, Kind, Target, check_kind
from vlmend.core.verdicts import Judge
from vlmend.errors import UsageError, VlmendError
from vlmend.report.compare import Run, comparison
from vlmend.report.html import write_report
from vlmend.report.shared import read_runs
from vlmend.studies.fitting import Defence, fitted

__all__ = ["BASE", "comparable", "compare_audits"]

BASE = "none"
"""The row, and the run folder, of the model without a mend."""

Progress = Callable[[str, int, int], None]


def comparable(
    target: Target | str, suites: str | Sequence[str], judges: Sequence[Judge | str] | None
) -> Callable[[Kind], None]:
    """Refuses what `compare` cannot do with a target as soon as its kind is known."""

    def check(kind: Kind) -> None:
        check_kind(kind, target if isinstance(target, str) else target.name, "compare", ("chat", "dual"))
        if kind == "dual" and judges is not None:
            raise UsageError("A dual encoder gives no replies, so nobody judges them.", "Leave the judges out.")
        if kind == "chat" and suites:
            raise UsageError("A model that answers is compared by suites of its own.", "Leave the suites out.")

    return check


def compare_audits(
    target: DualTarget, defences: Sequence[Defence], given: Mapping[str, Mend], data: Dataset | None, plan: Plan,
    out: Path, *, seed: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Fit and audit every mend; writes `defences.json`, the page `defences.html` and a run folder for each row.

    A method that cannot be fitted here (its data lack, say) loses its row and nothing else: `left_out` says why.

    Args:
        target: The model without mends.
        defences: Methods of dual encoders with their settings.
        given: Mends that are there already, by the name of their row.
        data: What to fit on; each method's own data unless given.
        plan: What each audit asks.
        out: The folder.
        seed: Of the fits.
        progress: Called with (step, done, total).

    Returns:
        What `defences.json` holds: `model`, `plan`, `rows` of measures and paired tests, `left_out`.
    """
    with held(out):
        mends, about, left_out = _fitted(target, defences, data, out / "mends", seed, progress)
        mends |= given
        about |= {name: _about(mend.card.method, 0.0, "", mend.card.data) for name, mend in given.items()}
        folders = {name: out / "runs" / name.replace(" ", "-") for name in (BASE, *mends)}
        for k, (name, folder) in enumerate(folders.items()):
            progress("audits", k, len(folders))
            audit(target if name == BASE else target.with_mend(mends[name]), plan, folder)
        progress("audits", len(folders), len(folders))
        runs = read_runs(list(folders.values()))
        rows = [
            {"name": name, "run": str(folder)} | about[name] | _numbers(runs[0], run)
            for (name, folder), run in zip(folders.items(), runs, strict=True)
        ]
        content = {"model": target.name, "plan": plan.as_json(), "rows": rows, "left_out": left_out}
        write_json(out / "defences.json", content)
        write_report(runs, out / "defences.html")
    return content


def _fitted(
    target: DualTarget, defences: Sequence[Defence], data: Dataset | None, folder: Path, seed: int, progress: Progress
) -> tuple[dict[str, Mend], dict[str, dict[str, Any]], dict[str, str]]:
    """Mends by the name of their row, what is known of each row, and why a row is left out."""
    mends: dict[str, Mend] = {}
    about = {BASE: _about("", 0.0, "none", "none")}
    left_out: dict[str, str] = {}
    for k, defence in enumerate(defences):
        progress("fit", k, len(defences))
        method = defence.made()
        try:
            own = data or method.builtin() or Dataset("nothing", ())
            mends[defence.name], seconds = fitted(target, method, own, folder / defence.folder, seed)
        except VlmendError as problem:
            left_out[defence.name] = f"{problem.message} {problem.hint}"
            continue
        about[defence.name] = _about(defence.method, seconds, method.passes, method.data)
    progress("fit", len(defences), len(defences))
    return mends, about, left_out


def _about(method: str, seconds: float, passes: str, data: str) -> dict[str, Any]:
    return {"method": method, "fit_seconds": round(seconds, 1), "passes": passes, "data": data}


def _numbers(base: Run, run: Run) -> dict[str, Any]:
    tests = [] if run is base else [_tested(test) for test in comparison(base, run)]
    return {"measures": [asdict(row) for row in run.card], "tests": tests}


def _tested(test: Paired) -> dict[str, Any]:
    row = test.before
    named = {"suite": row.suite, "name": row.name, "group": row.group}
    return named | {"difference": test.difference._asdict(), "n": test.n, "p": test.p_value, "holm": test.holm}
