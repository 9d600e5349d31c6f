"""Verbs that make data of data: data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmend.cli.mending import pairs
from vlmend.cli.options import Json, app, names_of
from vlmend.printing import err_console, out_console, print_json

__all__ = ["data"]


@app.command()
def data(
    step: Annotated[str, typer.Argument(help="See: vlmend list steps.", autocompletion=names_of("steps"))],
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="FILE.jsonl, a folder that vlmend wrote, or a public set NAME:PATH.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the new data and the report; must not hold other data.")],
    parameters: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter, as k=v; may be given again.")
    ] = None,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Turn a data set into another, with a report of what was kept, changed, dropped and why."""
    from vlmend.data.editing import report_values, summary
    from vlmend.data.layouts import read_data
    from vlmend.data.writing import PAGE
    from vlmend.registry import make_step
    from vlmend.steps.running import apply_step

    made = make_step(step, pairs(parameters or []))
    given = read_data(source)
    with err_console.status(f"{made.name}: {len(given.examples)} rows"):
        edit = apply_step(made, given, seed=seed, out=out)
    if as_json:
        print_json("step", {"out": str(out), "summary": summary(edit), **report_values(edit)})
        return
    out_console.print(f"{summary(edit)}; report: {out / PAGE}", highlight=False, soft_wrap=True)
