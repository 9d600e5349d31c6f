"""The headline put right by people: from fifty labels of a row's replies on, its value is the corrected one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmend.audit.labels.report import label_report
from vlmend.core.measures import PUT_RIGHT, Measure

__all__ = ["LEAST", "put_right"]

LEAST = 50
"""Labels of a row's replies from which on prediction-powered intervals hold what they promise (`correction.ppi`)."""


def put_right(run: Path, rows: Sequence[Measure]) -> list[Measure]:
    """Rows with the rate that people would have given to all of their replies, where enough were labelled.

    The judge's own rate stays in `judged`, and pairs of runs are still compared by it, reply by reply. Of several
    labellers the one with the most labels counts.
    """
    if not any((run / "labels").glob("*.jsonl")):
        return list(rows)
    corrected = [one for one in label_report(run)["corrected"] if one["labels"] >= LEAST]
    return [_put_right(row, [one for one in corrected if _of(one, row)]) for row in rows]


def _of(one: dict[str, Any], row: Measure) -> bool:
    groups = (one["condition"], f"{one['group']}:{one['condition']}")
    return (one["suite"], one["measure"], one["judge"]) == (row.suite, row.name, row.judge) and row.group in groups


def _put_right(row: Measure, corrected: Sequence[dict[str, Any]]) -> Measure:
    if not corrected:
        return row
    most = max(corrected, key=lambda one: one["labels"])
    found, who = most["ppi"], most["labeller"].removeprefix("human-")
    if None in found.values():
        return row
    return replace(row, **found, judged=row.value, judge=f"{row.judge}{PUT_RIGHT}{most['labels']} labels of {who}")
