"""The audit of a dual encoder: suites to samples to a scorecard, in one folder that can be resumed.

The folder holds `run.json`, `measured.jsonl` (the samples of every suite that is done) and `scorecard.json`. Inspect
has no part in it: there is no dialogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from vlmend import registry
from vlmend.audit.dual_suite import Sample
from vlmend.audit.plan import Plan, suites_of
from vlmend.audit.records import Records
from vlmend.audit.run_folder import blank_card, claim, held
from vlmend.core.contracts import DualTarget
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.mend import Mend
from vlmend.core.verdicts import Judge
from vlmend.data.layouts import read_data
from vlmend.errors import UsageError

__all__ = ["audit_dual"]


def audit_dual(
    target: DualTarget,
    plan: Plan,
    out: Path,
    *,
    mends: Sequence[Mend] = (),
    judges: Sequence[Judge] = (),
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Scorecard:
    """Run the suites of a plan on a dual encoder; a suite that is done is not measured again.

    Raises:
        RunProblem: The folder holds another run, or is in use.
        UsageError: A suite is for models that answer, or settings speak of replies.
        BadData: The data holds nothing that a suite can measure.
    """
    _check_no_replies(plan, judges)
    data = None if plan.data is None else read_data(plan.data)
    names = suites_of(plan.suites, data, "dual")
    rows: list[Measure] = []
    with held(out):
        claim(out, plan, target, data)
        journal = Records(out / "measured.jsonl", frozenset({"samples"}))
        for place, name in enumerate(names):
            progress("measure", place, len(names))
            suite = registry.dual_suite(name)
            if name not in journal.rows:
                found = suite.samples(target, data, plan.limit)
                journal.write([{"key": name, "samples": [asdict(sample) for sample in found]}])
            rows += suite.measures([Sample(**row) for row in journal.rows[name]["samples"]], plan.seed)
        progress("measure", len(names), len(names))
        card = replace(blank_card(target, plan, data, mends), rows=tuple(rows))
        card.save(out / "scorecard.json")
    return card


def _check_no_replies(plan: Plan, judges: Sequence[Judge]) -> None:
    """Settings that speak of replies have no meaning here."""
    given = {
        "judges": bool(judges), "temperature": plan.temperature > 0, "epochs": plan.epochs > 1,
        "max_new_tokens": plan.max_new_tokens is not None,
    }  # fmt: skip
    named = ", ".join(name for name, there in given.items() if there)
    if named:
        raise UsageError(f"A dual encoder gives no replies, so {named} cannot be set.", "Leave it out.")
