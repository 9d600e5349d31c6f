"""What verbs share: the app, options, and the loading of models and anchors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlmend.core.examples import Dataset
from vlmend.printing import err_console

if TYPE_CHECKING:
    from vlmend.models.vlm import VLM

__all__ = [
    "Blocks", "DTypeOption", "Device", "Gates", "JUnit", "Json", "Judges", "Markdown", "Model", "anchors", "app",
    "load_model",
]  # fmt: skip

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Argument(help="A hub name, a folder, or an embedded model such as phantom.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str | None, typer.Option(help="cuda, cpu, ...; the GPU where there is one.")]
DTypeOption = Annotated[Literal["auto", "float32", "float16", "bfloat16"], typer.Option(help="Of the weights.")]
Blocks = Annotated[str | None, typer.Option(help="Path of the decoder blocks, where they cannot be told.")]
Judges = Annotated[
    list[str] | None,
    typer.Option("--judge", help="Who reads the replies; the first gives the headline. May be given again."),
]
Gates = Annotated[
    list[str] | None, typer.Option("--gate", help='Bound, as "safety.unsafe_rate[original].high <= 0.10".')
]
JUnit = Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML.")]
Markdown = Annotated[
    Path | None, typer.Option(help="Append gates and scorecard as Markdown, e.g. $GITHUB_STEP_SUMMARY.")
]


def load_model(
    model: str, device: str | None, dtype: Literal["auto", "float32", "float16", "bfloat16"], blocks: str | None
) -> VLM:
    """A target by name, with a word on the screen while it loads."""
    from vlmend import registry
    from vlmend.models.load import load

    with err_console.status(f"loading {model}"):
        return load(registry.model_folder(model), name=model, device=device, dtype=dtype, blocks=blocks)


def anchors(data: Path | None) -> Dataset:
    """What mends are fitted on: the user's rows, or the built-in anchors."""
    from vlmend.data.sources import builtin_dataset, read_jsonl

    return read_jsonl(data) if data else builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
