"""Verbs that take a mended model elsewhere: export, score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlmend.cli.options import Json, Limit, LoadOptions, Model, app, names_of, opened, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.errors import BadParameter
from vlmend.printing import out_console, print_json

if TYPE_CHECKING:
    from vlmend.export.checkpoint.proofs import Proof
    from vlmend.export.private.asking import Answers

__all__ = ["export", "score"]


def _proof(before: Path | None, after: Path | None) -> Proof | None:
    """What two runs tell a card; nothing without any."""
    if before is None and after is None:
        return None
    from vlmend.data.catalogue import adapters
    from vlmend.report.cards import proof_of
    from vlmend.report.compare import read_run

    if before is None or after is None:
        raise BadParameter("A card tells of two runs.", "Pass --before and --after.")
    first, second = read_run(before), read_run(after)
    found = adapters().get((first.card.provenance.get("data") or {}).get("name", ""))
    return proof_of(first, second, found.hub.id if found and found.hub else None)


@app.command()
@with_loading
def export(
    runtime: Annotated[
        str, typer.Argument(help="Where to: see vlmend list exporters.", autocompletion=names_of("exporters"))
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a mend; may be given again.")] = None,
    always: Annotated[
        bool,
        typer.Option(
            "--always", help="hf, gguf, vllm: let edits meant for image requests act on text-only requests too."
        ),
    ] = False,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="hf: of the saved weights, float32 unless given; the proof is in float32."),
    ] = None,
    before: Annotated[Path | None, typer.Option(help="hf: run of the model as it is, for the card.")] = None,
    after: Annotated[Path | None, typer.Option(help="hf: run with these mends, or of the checkpoint.")] = None,
    data: Annotated[str | None, typer.Option(help="he, mpc: data whose answers name the classes of the head.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="he, mpc: a safetensors file with weight and bias of a linear layer instead.")
    ] = None,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Take a mended model to another runtime, prove it equal to the hooks, and write it."""
    from vlmend import registry

    given = {"always": always or None, "dtype": dtype, "data": data, "head": head, "proof": _proof(before, after)}
    options = {name: value for name, value in given.items() if value is not None}
    with progress_bars(model) as report:
        from vlmend.audit.preflight import check_names_of
        from vlmend.core.mend import Mend

        check_names_of(
            model, [] if data is None else [data], lambda: registry.exporter(runtime).check_options(options), out=out,
            mends=mend or (), options=loading,
        )  # fmt: skip
        exporter = registry.exporter(runtime)
        view = opened(model, replace(loading, dtype="float32"), f"export {runtime}", exporter.works_on)
        report("load", 1, 1)
        for one in [Mend.load(folder) for folder in mend or ()]:
            view = view.with_mend(one)
        report("export", 0, 1)
        made = exporter.write(view, out, options)
    if as_json:
        print_json("export", {key: str(one) if isinstance(one, Path) else one for key, one in made.items()})
        return
    _print(exporter.told(made))


@app.command()
@with_loading
def score(
    folder: Annotated[Path, typer.Argument(help="What `export he` or `export mpc` wrote.")],
    data: Annotated[str | None, typer.Option(help="Rows with pictures: FILE.jsonl, a folder, a public set.")] = None,
    mend: Annotated[
        list[Path] | None, typer.Option(help="Folder of a mend that the head was exported with; may be given again.")
    ] = None,
    limit: Limit = None,
    server: Annotated[str | None, typer.Option(help="he: HOST:PORT of a server; else one is started here.")] = None,
    serve: Annotated[str | None, typer.Option(help="he: be the server, at HOST:PORT.")] = None,
    key: Annotated[Path | None, typer.Option(help="he: file of the client's keys; made at the first use.")] = None,
    parties: Annotated[
        str | None, typer.Option(help="mpc: HOST:PORT of who asks, who holds the head and who helps, with commas.")
    ] = None,
    party: Annotated[int, typer.Option(min=0, max=2, help="mpc: which of the parties this is.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="mpc: how many pictures party 0 asks about.")] = 1,
    out: Annotated[Path | None, typer.Option(help="File for a line of JSON for each picture.")] = None,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Name pictures by a head that sees no picture, or be the server or a party of others who do."""
    if serve is not None:
        from vlmend.export.private.scoring import address_of
        from vlmend.export.private.serving import serve as serve_at

        serve_at(folder, *address_of(serve), lambda place: out_console.print(f"listening at {place}", highlight=False))
        return
    places = [] if parties is None else parties.split(",")
    if party:
        _take_part(folder, places, party, count)
        return
    if data is None:
        raise BadParameter("There is nothing to name.", "Give --data with pictures; or --serve, --party.")
    values, told = _ask(folder, data, mend or (), limit, server, key, places, loading, quiet=as_json)
    if out is not None:
        from vlmend.core.files import write_file
        from vlmend.core.jsontext import to_json

        write_file(out, "".join(to_json(row) + "\n" for row in values["named"]))
    if as_json:
        print_json("score", values)
        return
    _print(told)


def _ask(
    folder: Path, data: str, mends: Sequence[Path], limit: int | None, server: str | None, key: Path | None,
    places: Sequence[str], loading: LoadOptions, *, quiet: bool,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Be the party with the pictures: what was found, as values and in words. What is not private is said first."""
    with progress_bars() as report:
        from vlmend.core.mend import Mend
        from vlmend.data.layouts import read_data
        from vlmend.export.private.asking import ask
        from vlmend.export.private.head import read_asker

        asker = read_asker(folder)
        if not quiet:
            _print(f"not private: {line}" for line in asker.not_private)
        rows, held = read_data(data).examples[:limit], [Mend.load(one) for one in mends]
        view = opened(asker.model, replace(loading, dtype="float32"), "score", "dual")
        for one in held:
            view = view.with_mend(one)
        found = ask(
            view, rows, folder, asker, server=server, key=key, parties=places,
            tick=lambda done: report("score", done, len(rows)),
        )  # fmt: skip
    return found.values, _told(found)


def _take_part(folder: Path, places: Sequence[str], party: int, count: int) -> None:
    from vlmend.export.private.head import read_asker
    from vlmend.export.private.scoring import PARTIES, take_part

    if len(places) != PARTIES:
        raise BadParameter(f"{len(places)} parties are named.", "Give --parties HOST:PORT,HOST:PORT,HOST:PORT.")
    asker = read_asker(folder)
    take_part(
        party, places, count=count, classes=len(asker.names), width=asker.width, folder=folder if party == 1 else None
    )
    _print([f"party {party} has done its part for {count} pictures"])


def _told(found: Answers) -> list[str]:
    values = found.values
    back = f" and {values['bytes_received'] / 1e3:.0f} kB received" * bool(found.found.received)
    lines = [
        f"{values['n']} pictures named, {values['seconds']:.2f} s each, {values['bytes_sent'] / 1e3:.0f} kB sent{back} "
        f"for each, {values['bytes_once'] / 1e6:.1f} MB once",
        *(f"left out: {name}: {why}" for name, why in found.left_out),
    ]
    if found.agreement is not None:
        lines.append(
            f"the same class as in the clear: {found.agreement.value:.1%} [{found.agreement.low:.1%}, "
            f"{found.agreement.high:.1%}]; scores are at most {found.apart:.1e} apart"
        )
    if found.accuracy is not None:
        lines.append(f"right: {found.accuracy.value:.1%} [{found.accuracy.low:.1%}, {found.accuracy.high:.1%}]")
    return lines


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        out_console.print(line, highlight=False, markup=False, soft_wrap=True)
