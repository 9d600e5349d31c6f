"""Verbs that take a mended model elsewhere: export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlmend.cli.options import Json, LoadOptions, Model, app, names_of, opened_chat, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.printing import out_console, print_json

__all__ = ["export"]


@app.command()
@with_loading
def export(
    runtime: Annotated[
        str, typer.Argument(help="Where to: see vlmend list exporters.", autocompletion=names_of("exporters"))
    ],
    model: Model,
    mend: Annotated[list[Path], typer.Option(help="Folder of a mend; may be given again.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint; must not exist yet.")],
    always: Annotated[
        bool, typer.Option("--always", help="Let edits meant for image requests act on text-only requests too.")
    ] = False,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Of the saved weights; the proof is in float32.")
    ] = "float32",
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Fold mends into the weights, prove it equal to the hooks, and write a checkpoint."""
    with progress_bars(model) as report:
        from vlmend import registry
        from vlmend.audit.preflight import check_names_of
        from vlmend.core.mend import Mend

        check_names_of(model, (), lambda: registry.exporter(runtime), out=out, mends=mend, options=loading)
        view = opened_chat(model, replace(loading, dtype="float32"), "export")
        report("load", 1, 1)
        for one in [Mend.load(folder) for folder in mend]:
            view = view.with_mend(one)
        report("export", 0, 1)
        made = registry.exporter(runtime).write(view, out, {"always": always, "dtype": dtype})
    if as_json:
        print_json("export", {key: str(one) if isinstance(one, Path) else one for key, one in made.items()})
        return
    out_console.print(
        f"{out}: {model} with {', '.join(made['mends'])} in {len(made['layers'])} layers, "
        f"{made['error']:.1e} of the largest logit away from its hooks",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if made["always"]:
        out_console.print(
            f"note: text-only requests are edited too (the logits of one moved by up to {made['text_moved']:.3g}); "
            "audit this checkpoint, not the mend",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
