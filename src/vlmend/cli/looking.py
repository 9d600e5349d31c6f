"""Verbs that show: report, view, explain, demo, power, list, doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from vlmend.cli.options import ApiBase, Json, Limit, LoadOptions, Model, app, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.errors import VlmendError
from vlmend.printing import machine, out_console, print_json, show_rows, show_runs

if TYPE_CHECKING:
    from vlmend.core.targets import Target
    from vlmend.models.checkup.checks import Finding

__all__ = ["demo", "doctor", "explain", "list_", "power", "report", "view"]


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is what the others are compared with.")],
    out: Annotated[Path, typer.Option(help="The page to write.")],
    show_text: Annotated[bool, typer.Option(help="Put requests and replies on the page.")] = False,
    as_json: Json = False,
) -> None:
    """Write one self-contained page about runs."""
    from vlmend.report.compare import headline, warnings_of
    from vlmend.report.html import write_report
    from vlmend.report.shared import read_runs

    base, *others = read = read_runs(runs)
    write_report(read, out, show_text=show_text)
    told, warned = headline(base, others), warnings_of(base, *others)
    if as_json:
        print_json("report", {"page": str(out), "headline": told, "warnings": warned})
        return
    for line in (told, *(f"note: {warning}" for warning in warned), f"page: {out}"):
        out_console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def view(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; every one under runs/ unless given.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page; view.html in the run folder unless given, of several beside them.")
    ] = None,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Leave out requests, replies, reasons and images.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    as_json: Json = False,
) -> None:
    """Look at runs side by side, sample by sample, on one local page."""
    from vlmend.report.view import find_runs, view_summary, write_view

    folders = runs or find_runs(Path("runs"))
    home = folders[0] if len(folders) == 1 else folders[0].parent
    page = write_view(folders, out or home / "view.html", text=not no_text)
    if as_json:
        print_json("view", {"page": str(page)} | view_summary(folders))
    else:
        out_console.print(f"{page}", soft_wrap=True)
    if open_:
        typer.launch(str(page.resolve()))


@app.command()
@with_loading
def explain(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(help="Rows with image: FILE.jsonl, a folder, a public set; built-in people unless given."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="What to explain of every picture: a text of a dual encoder, a reply of a model that answers. May be "
            "given again. Each row's caption or first answer unless given, or the model's own reply."
        ),
    ] = None,
    method: Annotated[
        Literal["integrated_gradients", "grad_cam", "occlusion"], typer.Option(help="How the maps are made.")
    ] = "integrated_gradients",
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a mend; may be given again.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for maps, numbers and the page.")] = Path("runs/explain"),
    limit: Limit = None,
    seed: int = 0,
    checks: Annotated[
        bool,
        typer.Option("--checks/--no-checks", help="Hold maps to shuffled weights and to hidden cells."),
    ] = True,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Show what in a picture speaks for a text or a reply, and whether the maps can be believed."""
    with progress_bars(model) as progress:
        from vlmend import face
        from vlmend.audit.preflight import check_names_of
        from vlmend.report.explained import explained_content

        check_names_of(model, [data] if data else [], out=out, mends=mend or (), options=loading)
        face.explain(
            model, data, out, texts=text or (), method=method, mends=mend or (), limit=limit, seed=seed, checks=checks,
            options=loading, progress=progress,
        )  # fmt: skip
    told = explained_content(out)
    if as_json:
        print_json("explain", {"page": str(out / "explain.html")} | told)
        return
    for row in told["summary"].values():
        value = f"{row['value']:.0%}" if row["unit"] == "share" else f"{row['value']:.2f}"
        out_console.print(f"{value:>7}  {row['what']}", highlight=False, markup=False, soft_wrap=True)
    lost = f", {len(told['missing'])} rows without" if told["missing"] else ""
    out_console.print(f"{told['maps']} maps{lost}. page: {out / 'explain.html'}", highlight=False, soft_wrap=True)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option(help="Fewer requests and no random control; under 4 minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    model: Annotated[str, typer.Option(help="An embedded model, or any other.")] = "phantom",
    as_json: Json = False,
) -> None:
    """Audit, mend and prove it on the embedded model."""
    from vlmend.demo import demo as run_demo
    from vlmend.report.compare import headline, warnings_of
    from vlmend.report.shared import read_runs

    out = out.with_name(f"{out.name}-quick") if quick else out
    with progress_bars() as progress:
        page = run_demo(out, model=model, quick=quick, progress=progress)
    folders = [out / name for name in ("base", "cmrm", "random")]
    base, *others = read_runs([folder for folder in folders if (folder / "scorecard.json").exists()])
    if as_json:
        warned = warnings_of(base, *others)
        print_json("report", {"page": str(page), "headline": headline(base, others), "warnings": warned})
        return
    show_runs([base, *others])
    out_console.print(headline(base, others))
    for warning in warnings_of(base, *others):
        out_console.print(f"note: {warning}", highlight=False)
    out_console.print(f"report: {page}")


@app.command()
def power(
    rate: Annotated[float, typer.Option(help="The rate to expect before, 0 to 1.")],
    to: Annotated[float, typer.Option(help="The rate hoped for after.")],
    n: Annotated[int, typer.Option(help="Samples, each asked before and after.")],
    broken: Annotated[float, typer.Option(help="Share of samples expected to change for the worse.")] = 0.02,
    as_json: Json = False,
) -> None:
    """Say what n samples can show, and how many would do."""
    from vlmend.core.metrics.power import plan_table

    rows = plan_table(rate=rate, to=to, n=n, broken=broken)
    if as_json:
        print_json("power", {"rows": rows})
        return
    table = Table("", "n", "value", "95 % interval", box=None, pad_edge=False)
    for row in rows:
        limits = "" if row["low"] is None else f"{row['low']:.1%} to {row['high']:.1%}"
        table.add_row(row["what"], str(row["n"]), f"{row['value']:.1%}", limits)
    out_console.print(table)


@app.command(name="list")
def list_(
    group: Annotated[str, typer.Argument(help="methods, attacks, steps, suites, judges, exporters, data, models, ...")],
    axis: Annotated[
        Literal["safety", "privacy", "fairness", "robustness", "utility"] | None,
        typer.Option(help="Of this axis only."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is of a group of plug-ins."""
    from vlmend.listing import listed

    rows = listed(group, axis or "")
    print_json("list", {"group": group, "rows": rows}) if as_json else show_rows(rows)


@app.command()
@with_loading
def doctor(
    model: Annotated[str | None, typer.Argument(help="Also load this model, say what was found and try it.")] = None,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has, what a model is made of, and what works with it."""
    found = machine()
    if not as_json:
        for key, value in found.items():
            _line(key, str(value))
    findings, code = ([], 0) if model is None else _examined(model, loading, api_base)
    if as_json:
        told = {"model": model, "findings": [asdict(one) for one in findings]} if model else {}
        print_json("doctor", found | told)
    else:
        part = ""
        for one in findings:
            if one.part != part:
                part = one.part
                out_console.print(f"\n{part}", highlight=False)
            _line(one.name, {None: "", True: "ok  ", False: "NO  "}[one.ok] + one.value)
    if code:
        raise typer.Exit(code)


def _line(name: str, value: str) -> None:
    out_console.print(f"{name:>28}  {value}", highlight=False, markup=False, soft_wrap=True)


def _examined(model: str, loading: LoadOptions, api_base: str | None) -> tuple[list[Finding], int]:
    """The check-up of a model, and the exit code: that of the error where it does not even load."""
    with progress_bars(model) as report:
        from vlmend.audit.preflight import check_names_of
        from vlmend.face import open_target
        from vlmend.models.checkup.checks import Finding
        from vlmend.models.loading.target import memory_of
        from vlmend.registry import model_folder

        try:
            check_names_of(model, options=loading)
            memory = memory_of(model, loading, folder=model_folder(model))
            target = open_target(model, options=loading, api_base=api_base)
        except VlmendError as problem:
            return [Finding("structure", "loads", str(problem), False)], problem.exit_code
        report("load", 1, 1)
        report(f"trying {model}", 0, 1)
        told = [] if memory is None else [Finding("structure", "memory", str(memory))]
        return [*told, *_tried(target)], 0


def _tried(target: Target) -> list[Finding]:
    """What a loaded model is made of, and what works with it."""
    from vlmend.core.targets import ChatTarget, DrawTarget, DualTarget
    from vlmend.export.checkpoint.refusals import refusals
    from vlmend.models.checkup.checks import Finding, checkup, constant_view
    from vlmend.models.checkup.outside import checkup_draw, checkup_dual, checkup_replies
    from vlmend.models.vlm import VLM

    if isinstance(target, DualTarget):
        return checkup_dual(target)
    if isinstance(target, DrawTarget):
        return checkup_draw(target)
    if not isinstance(target, VLM):
        assert isinstance(target, ChatTarget)
        return checkup_replies(target)
    findings = checkup(target)
    try:
        reasons = refusals(constant_view(target), always=False)
    except Exception as problem:
        reasons = [f"the check failed with {type(problem).__name__}: {problem}"]
    return [
        *findings,
        Finding("supported", "hook-free export", "; ".join(reasons) or "constant mends fold", not reasons),
    ]
