"""Verbs about the embedded models with known faults: phantom build."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vlmend.cli.options import Json, app
from vlmend.printing import err_console, out_console, print_json

__all__ = ["build", "phantoms"]

phantoms = typer.Typer(help="The embedded models whose faults are known.", no_args_is_help=True)
app.add_typer(phantoms, name="phantom")


@phantoms.command()
def build(
    name: Annotated[str, typer.Argument(help="phantom, phantom-clean, phantom-clip, phantom-mini, ...")],
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train it by its recipe, instead of unpacking what is shipped.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the stages of --from-scratch; a stopped build resumes there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a phantom together, or train it from scratch, and print where it is."""
    from vlmend.phantom.shelf import build_from_scratch, put_together

    began = time.monotonic()

    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        err_console.print(f"{minutes:3d}:{seconds:02d}  {line}", highlight=False, markup=False, soft_wrap=True)

    made = build_from_scratch(name, out, say) if from_scratch else put_together(name)
    if as_json:
        print_json("phantom", {"name": name, "folder": str(made)})
        return
    out_console.print(str(made), highlight=False, soft_wrap=True)
