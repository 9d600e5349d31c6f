"""One self-contained page about one or more runs. No harmful text unless asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from vlmend.core.verdicts import VerdictLabel
from vlmend.report import figures
from vlmend.report.compare import CONDITIONS, GAP, NAMING, REFUSAL, Run, changes, headline, moves, warnings_of
from vlmend.report.pages import write_page

__all__ = ["write_report"]

SHOWN = 24
"""Samples on the page with `show_text`."""


def write_report(runs: Sequence[Run], out: Path, *, show_text: bool = False) -> None:
    """Write the page; the first run is what the others are compared with.

    Raises:
        RunProblem: The file cannot be written.
    """
    write_page("page.html.jinja", _content(runs, show_text), out)


def _content(runs: Sequence[Run], show_text: bool) -> dict[str, Any]:
    base, *others = runs
    return {
        "title": f"{base.card.model}: {', '.join(run.name for run in runs)}",
        "headline": headline(base, others),
        "warnings": [warning for run in others for warning in warnings_of(base, run)],
        "gap_figure": _bars(runs, GAP, "unsafe_rate", CONDITIONS, "unsafe replies"),
        "price_figure": _price(runs),
        "naming_figure": _bars(runs, NAMING, "accuracy", ("naming",), "pictures named right"),
        "dose_figure": _dose(others),
        "state_figure": next((figures.states(run.states) for run in others if run.states), None),
        "comparisons": [(run, found) for run in others if (found := changes(base, run))],
        "moves": [(run, found) for run in others if (found := moves(base, run))],
        "replies": any(run.samples for run in runs),
        "duals": any(run.measured for run in runs),
        "verdicts": [(run, _verdict_counts(run)) for run in runs],
        "labels": [
            label for label in get_args(VerdictLabel) if any(s["label"] == label for r in runs for s in r.samples)
        ],
        "runs": runs,
        "samples": _samples(base, others) if show_text else [],
    }


def _bars(runs: Sequence[Run], suite: str, name: str, groups: Sequence[str], label: str) -> str | None:
    series = [(run.name, [run.value(suite, name, group) for group in groups]) for run in runs]
    kept = [k for k in range(len(groups)) if any(rows[k] is not None for _, rows in series)]
    if not kept:
        return None
    shown = [(run, [rows[k] for k in kept]) for run, rows in series]
    return figures.bars([groups[k] for k in kept], shown, label)


def _price(runs: Sequence[Run]) -> str | None:
    groups = [f"{kind}:{how}" for kind in ("lookalike", "ordinary", "benign") for how in ("query", "original")]
    return _bars(runs, REFUSAL, "refusal_rate", groups, "harmless requests declined")


def _dose(runs: Sequence[Run]) -> str | None:
    series = [(run.name, mend["dose"]) for run in runs for mend in run.card.mends if mend["dose"]]
    return figures.dose(series) if series else None


def _verdict_counts(run: Run) -> list[tuple[str, str, dict[str, int]]]:
    """Suite, condition and the count of each verdict: nothing is hidden in a rate."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for sample in run.samples:
        if sample["suite"] == NAMING:
            continue
        here = counts.setdefault((sample["group"], sample["condition"]), {})
        here[sample["label"]] = here.get(sample["label"], 0) + 1
    return [(group, condition, here) for (group, condition), here in sorted(counts.items())]


def _samples(base: Run, others: Sequence[Run]) -> list[dict[str, Any]]:
    replies = {run.name: {s["id"]: s for s in run.samples} for run in (base, *others)}
    shown = [s for s in base.samples if s["suite"] == GAP and s["condition"] == "original"][:SHOWN]
    return [
        {"prompt": s["prompt"], "replies": [(name, by_id.get(s["id"])) for name, by_id in replies.items()]}
        for s in shown
    ]
