"""One self-contained page about one or more runs. No harmful text unless asked for.

What is on it follows from the scorecard rows and the samples: no suite or measure is named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from vlmend.core.measures import Measure, behind
from vlmend.core.mend import at_sites
from vlmend.core.severity import leading
from vlmend.core.verdicts import VerdictLabel
from vlmend.report import charts, figures
from vlmend.report.beside import hidden, side_by_side
from vlmend.report.compare import Run, comparison, headline, observed, warnings_of
from vlmend.report.pages import write_page

__all__ = ["write_report"]

SHOWN = 24
"""Samples on the page with `show_text`."""

SPREAD = "A dot is a sample; boxes hold the middle half, whiskers nine tenths, lines are medians."


class Plot(NamedTuple):
    """A figure of one measure, and what a reader must know to read it."""

    title: str
    note: str
    svg: str


class Counted(NamedTuple):
    """How often each verdict was given to the samples of one suite, group and condition."""

    suite: str
    group: str
    condition: str
    labels: dict[str, int]


def write_report(runs: Sequence[Run], out: Path, *, show_text: bool = False) -> None:
    """Write the page; the first run is what the others are compared with. `shared.read_runs` reads them alike.

    Raises:
        RunProblem: The file cannot be written.
    """
    write_page("page.html.jinja", _content(runs, show_text), out)


def _content(runs: Sequence[Run], show_text: bool) -> dict[str, Any]:
    base, *others = runs
    tests = [(run, comparison(base, run)) for run in others]
    verdicts = [(run, _verdict_counts(run)) for run in runs]
    return {
        "title": f"{base.card.model}: {', '.join(run.name for run in runs)}",
        "headline": headline(base, others),
        "warnings": warnings_of(base, *others),
        "plots": [*_plots(runs), *_lines(runs), *_spreads(runs)],
        "dose_figure": _dose(others),
        "state_figure": next((figures.states(run.states) for run in others if run.states), None),
        "comparisons": [
            (run, [t for t in found if t.before.compared == "share"], [t for t in found if t.before.compared == "mean"])
            for run, found in tests
            if found
        ],
        "replies": any(run.samples for run in runs),
        "axes": {row.axis for run in runs for row in run.card},
        "verdicts": verdicts if any(rows for _, rows in verdicts) else [],
        "labels": _labels(verdicts),
        "runs": runs,
        "samples": _samples(base, others) if show_text else [],
        "beside": side_by_side(runs, users=show_text),
        "hidden": 0 if show_text else hidden(runs),
    }


def _plots(runs: Sequence[Run]) -> list[Plot]:
    """A figure for each measure that is compared as a share or is in the first sentence."""
    rows = [row for run in runs for row in run.card]
    wanted = dict.fromkeys((row.suite, row.name) for row in rows if row.compared == "share" or row.says)
    return [_plot(runs, [row for row in rows if (row.suite, row.name) == key]) for key in wanted]


def _plot(runs: Sequence[Run], rows: Sequence[Measure]) -> Plot:
    """Bars of one measure: its groups side by side, a colour a run."""
    first, name = rows[0], rows[0].name.replace("_", " ")
    groups = list(dict.fromkeys(row.group for row in rows))
    series = [(run.name, [run.value(first.suite, first.name, group) for group in groups]) for run in runs]
    notes = _wishes(rows)
    notes += [f"Held against: {other}." for other in dict.fromkeys(row.against for row in rows if row.against)]
    return Plot(f"{first.suite}: {name}", " ".join(notes), figures.bars(groups, series, name))


def _lines(runs: Sequence[Run]) -> list[Plot]:
    """A figure for each suite and title that runs have curves of."""
    found: list[Plot] = []
    for suite, title in dict.fromkeys((curve.suite, curve.title) for run in runs for curve in run.card.curves):
        series = [(run.name, [c for c in run.card.curves if (c.suite, c.title) == (suite, title)]) for run in runs]
        note = next(curve.note for _, curves in series for curve in curves)
        found.append(Plot(f"{suite}: {title}", note, charts.lines(series)))
    return found


def _spreads(runs: Sequence[Run]) -> list[Plot]:
    """The samples behind each mean that the first sentence tells of, by group, unless they are all yes or no."""
    rows = [row for run in runs for row in run.card if row.compared == "mean"]
    found: list[Plot] = []
    for suite, name in dict.fromkeys((row.suite, row.name) for row in rows if row.says):
        here = [row for row in rows if (row.suite, row.name) == (suite, name)]
        of_group = {row.group: row for row in here}
        series = [(run.name, [_values(run, row) for row in of_group.values()]) for run in runs]
        if len({value for _, every in series for values in every for value in values}) > 2:
            label = name.replace("_", " ")
            figure = charts.spreads([*of_group], series, label, here[0].unit)
            found.append(Plot(f"{suite}: {label}, sample by sample", SPREAD, figure))
    return found


def _values(run: Run, row: Measure) -> list[float]:
    """Of the samples of a run that a measure is the mean of."""
    return [
        sample["values"][row.name]
        for sample in run.measured.get(row.suite, [])
        if row.name in sample.get("values", {}) and behind(row, observed(sample))
    ]


def _wishes(rows: Sequence[Measure]) -> list[str]:
    """Which direction is better, with the groups where that is not the same of all."""
    wishes = {row.better for row in rows}
    told: list[str] = []
    for better in ("lower", "higher"):
        groups = ", ".join(dict.fromkeys(row.group for row in rows if row.better == better))
        if groups:
            told.append(f"{better.capitalize()} is better" + (f" ({groups})." if len(wishes) > 1 else "."))
    return told


def _dose(runs: Sequence[Run]) -> str | None:
    series = [(run.name, doses) for run in runs for mend in run.card.mends if (doses := at_sites(mend["dose"]))]
    return figures.dose(series) if series else None


def _verdict_counts(run: Run) -> list[Counted]:
    """The verdicts of every suite that judges read: nothing is hidden in a rate."""
    judged = dict.fromkeys(sample["suite"] for sample in run.samples if sample.get("verdicts"))
    counts: dict[tuple[str, str, str], dict[str, int]] = {}
    for sample in run.samples:
        if sample["suite"] in judged:
            here = counts.setdefault((sample["suite"], sample["group"], sample["condition"]), {})
            here[sample["label"]] = here.get(sample["label"], 0) + 1
    return [Counted(*key, here) for key, here in sorted(counts.items())]


def _labels(verdicts: Sequence[tuple[Run, Sequence[Counted]]]) -> list[str]:
    """Every label that was given, those that all judges know first."""
    given = {label for _, rows in verdicts for row in rows for label in row.labels}
    known = [label for label in get_args(VerdictLabel) if label in given]
    return [*known, *sorted(given - set(known))]


def _samples(base: Run, others: Sequence[Run]) -> list[dict[str, Any]]:
    """The first samples behind the first row of the headline, with the reply of each run."""
    rows = [*leading(base.card, *(run.card for run in others)), *base.card]
    shown = [s for s in base.samples if rows and s["suite"] == rows[0].suite and behind(rows[0], observed(s))][:SHOWN]
    replies = {run.name: {(s["suite"], s["id"]): s for s in run.samples} for run in (base, *others)}
    return [
        {"prompt": s["prompt"], "replies": [(name, by.get((s["suite"], s["id"]))) for name, by in replies.items()]}
        for s in shown
    ]
