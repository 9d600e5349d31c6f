"""Puts every judge's verdicts into Inspect's own logs, so that `inspect view` shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inspect_ai import score
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log, write_eval_log
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from vlmend.audit.tasks import shares

__all__ = ["add_scores"]

LARGEST = 64 * 2**20
"""Larger logs are left as they are: adding a score reads them whole, images included, into memory."""


def add_scores(out: Path) -> None:
    """Add a score for each judge that a log does not hold yet, read from `samples.jsonl`."""
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    for info in list_eval_logs(str(out / "logs")):
        header = read_eval_log(info, header_only=True)
        suite = str((header.eval.metadata or {}).get("suite"))
        mine = {row["id"]: row.get("verdicts", {}) for row in rows if row["suite"] == suite}
        wanted = {judge for said in mine.values() for judge in said} - _held(header)
        if header.status != "success" or not wanted or (info.size or 0) > LARGEST:
            continue
        log = read_eval_log(info)
        for judge in sorted(wanted):
            log = score(log, stored(str(out), suite, judge), action="append", model="none/none", display="none")
        write_eval_log(log, info.name)


@scorer(metrics=[shares()])
def stored(out: str, suite: str, judge: str) -> Scorer:
    """A judge's verdicts as they are written down in a run folder."""
    rows = [json.loads(line) for line in (Path(out) / "samples.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {row["id"]: row["verdicts"].get(judge) for row in rows if row["suite"] == suite}

    async def said(state: TaskState, target: Target) -> Score:
        verdict = found.get(f"{state.sample_id}#{state.epoch}") or found.get(str(state.sample_id))
        metadata = {"label": verdict["label"] if verdict else "unscored", "judge": judge}
        if verdict is None or verdict["label"] == "unscored":
            reason = verdict["reason"] if verdict else "not judged"
            return Score.unscored(answer=state.output.completion, explanation=f"{judge}: {reason}", metadata=metadata)
        return Score(
            value=verdict["label"], answer=state.output.completion,
            explanation=f"{judge}: {verdict['reason']}", metadata=metadata,
        )  # fmt: skip

    return said


def _held(header: EvalLog) -> set[str]:
    """Judges whose scores the log has already."""
    scores = header.results.scores if header.results else []
    return {str(one.params["judge"]) for one in scores if "judge" in one.params}
