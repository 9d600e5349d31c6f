"""Puts every judge's verdicts into Inspect's own logs, so that `inspect view` shows them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog, EvalMetric, EvalScore, list_eval_logs, read_eval_log, write_eval_log
from inspect_ai.scorer import Score

__all__ = ["LARGEST", "add_scores"]

LARGEST = 1000
"""Samples of the longest log that is added to: it is read whole, images included, and written again."""

Said = Mapping[str, Mapping[str, Any]]
"""Sample id -> judge -> verdict."""


def add_scores(out: Path) -> None:
    """Add a score for each judge that a log does not hold yet, from `samples.jsonl`."""
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    for info in list_eval_logs(str(out / "logs")):
        header = read_eval_log(info, header_only=True)
        suite = str((header.eval.metadata or {}).get("suite"))
        said = {row["id"]: row.get("verdicts", {}) for row in rows if row["suite"] == suite}
        held = {score.name for score in header.results.scores} if header.results else set[str]()
        wanted = sorted({judge for verdicts in said.values() for judge in verdicts} - held)
        if header.status == "success" and wanted and len(said) <= LARGEST:
            write_eval_log(_scored(read_eval_log(info), said, wanted), info.name)


def _scored(log: EvalLog, said: Said, judges: list[str]) -> EvalLog:
    """The log with a score a judge on every sample, and the share of each verdict in its results."""
    counts: dict[str, Counter[str]] = {judge: Counter() for judge in judges}
    for sample in log.samples or []:
        verdicts = said.get(f"{sample.id}#{sample.epoch}") or said.get(str(sample.id)) or {}
        for judge in judges:
            verdict = verdicts.get(judge) or {"label": "unscored", "reason": "not judged"}
            counts[judge][verdict["label"]] += 1
            sample.scores = (sample.scores or {}) | {judge: _score(verdict, sample.output.completion)}
    if log.results is not None:
        log.results.scores += [_result(judge, counts[judge]) for judge in judges]
    return log


def _score(verdict: Mapping[str, Any], reply: str) -> Score:
    if verdict["label"] == "unscored":
        return Score.unscored(answer=reply, explanation=verdict["reason"], metadata={"label": "unscored"})
    return Score(value=verdict["label"], answer=reply, explanation=verdict["reason"])


def _result(judge: str, counts: Counter[str]) -> EvalScore:
    shares = {label: EvalMetric(name=label, value=count / counts.total()) for label, count in sorted(counts.items())}
    return EvalScore(
        name=judge, scorer=judge, metrics=shares, scored_samples=counts.total() - counts["unscored"],
        unscored_samples=counts["unscored"],
    )  # fmt: skip
