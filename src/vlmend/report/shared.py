"""Several runs as one page tells them: where they were not asked the same, by what all of them were asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmend.core.measures import Measure, behind
from vlmend.core.metrics.paired import Observed
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.verdicts import UNREAD
from vlmend.errors import UsageError
from vlmend.report.compare import Run, observed, read_run

__all__ = ["on_shared", "read_runs"]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders that are told on one page; the first is what the others are compared with.

    Raises:
        UsageError: One is no finished run, or two were asked nothing in common in a suite of both.
    """
    return on_shared([read_run(folder) for folder in folders])


def on_shared(runs: Sequence[Run]) -> list[Run]:
    """The runs, with every number of a suite on the samples that each run with that suite was asked.

    Suites in which all were asked the same stay as they are. In another one (two limits, say) samples of one run alone
    are left out, shares and means are counted anew, and rows that are neither are dropped: the first run's notes say
    so.

    Raises:
        UsageError: Runs were asked nothing in common in a suite.
    """
    notes: list[str] = []
    kept: dict[str, frozenset[str]] = {}
    for suite in dict.fromkeys(suite for run in runs for suite in run.asked):
        asked = {run.name: run.asked[suite] for run in runs if suite in run.asked}
        common = frozenset[str].intersection(*asked.values())
        if all(keys == common for keys in asked.values()):
            continue
        sizes = ", ".join(f"{name} ({len(keys)})" for name, keys in asked.items())
        if not common:
            raise UsageError(
                f"{suite}: no sample is the same in {sizes}, so these runs cannot be compared.",
                "Audit them with the same --data and --limit, or write a report of each.",
            )
        kept[suite] = common
        notes.append(
            f"{suite}: the runs were not asked the same: {sizes} samples. Its numbers here are of the {len(common)} "
            "that all of them were asked; what is no share or mean of samples is left out."
        )
    if not kept:
        return list(runs)
    first, *others = [_cut(run, kept) for run in runs]
    return [replace(first, notes=(*first.notes, *notes)), *others]


def _cut(run: Run, kept: Mapping[str, frozenset[str]]) -> Run:
    """A run with these samples alone in the suites that are named."""
    card = run.card
    shares_and_means = {id(evidence.row) for evidence in run.evidence}
    samples = tuple(row for row in run.samples if _stays(row, row["suite"], kept))
    measured = {
        suite: [row for row in rows if _stays(row, suite, kept)] for suite, rows in run.measured.items()
    }  # fmt: skip
    by_suite: dict[str, list[Observed]] = {suite: list(map(observed, rows)) for suite, rows in measured.items()}
    for row in samples:
        by_suite.setdefault(row["suite"], []).append(observed(row))
    rows = tuple(
        _counted(row, by_suite[row.suite], card.seed) if row.suite in kept else row
        for row in card.rows
        if row.suite not in kept or id(row) in shares_and_means
    )
    others = tuple(row for row in card.others if row.suite not in kept)
    judges = tuple(pair for pair in card.judges if pair["suite"] not in kept)
    return replace(run, card=replace(card, rows=rows, others=others, judges=judges), samples=samples, measured=measured)


def _stays(row: Mapping[str, Any], suite: str, kept: Mapping[str, frozenset[str]]) -> bool:
    return suite not in kept or observed(row).key in kept[suite]


def _counted(row: Measure, samples: Sequence[Observed], seed: int) -> Measure:
    """A share or mean on some of its samples, by the judge alone; what chance gives on these is not known."""
    here = [sample for sample in samples if behind(row, sample)]
    if row.compared == "share":
        told = [(float(s.label in row.hit), s.cluster) for s in here if s.label not in ("", *UNREAD)]
    else:
        told = [(s.values[row.name], s.cluster) for s in here if math.isfinite(s.values.get(row.name, math.nan))]
    value, low, high = mean_interval([value for value, _ in told], [cluster for _, cluster in told], seed=seed)
    return replace(
        row, value=value, low=low, high=high, n=len(told), unscored=len(here) - len(told), floor=math.nan,
        judge=row.judge_of_samples, judged=math.nan, agreement=math.nan,
    )  # fmt: skip
