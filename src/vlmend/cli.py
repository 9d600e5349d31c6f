"""The command line. Each verb parses, makes one call and prints."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.table import Table
from typer.exceptions import TyperException

from vlmend.core.examples import Dataset
from vlmend.errors import UsageError, VlmendError
from vlmend.printing import (
    err_console,
    listed,
    machine,
    out_console,
    progress_bars,
    show_defences,
    show_runs,
    show_scorecard,
)

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
STOPPED = 130

Model = Annotated[str, typer.Argument(help="A hub name, a folder, or an embedded model such as phantom.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str | None, typer.Option(help="cuda, cpu, ...; the GPU where there is one.")]
DTypeOption = Annotated[Literal["auto", "float32", "float16", "bfloat16"], typer.Option(help="Of the weights.")]
Blocks = Annotated[str | None, typer.Option(help="Path of the decoder blocks, where they cannot be told.")]


@app.command()
def audit(
    model: Model,
    suite: Annotated[str, typer.Option(help="Suites or axes, separated by commas.")] = "safety,utility",
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a mend; may be given again.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Requests of each kind.")] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file of labelled requests.")] = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/audit"),
    seed: int = 0,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    device: Device = None,
    dtype: DTypeOption = "auto",
    blocks: Blocks = None,
    as_json: Json = False,
) -> None:
    """Measure a model, with or without mends."""
    from vlmend.audit.run import Plan
    from vlmend.audit.run import audit as run_audit
    from vlmend.audit.states import write_states
    from vlmend.core.mend import Mend

    names = tuple(part.strip() for part in suite.split(",") if part.strip())
    plan = Plan(names, str(data) if data else None, limit, max_new_tokens, seed)
    base = _load(model, device, dtype, blocks)
    mends = [Mend.load(folder) for folder in mend or []]
    target = base
    for one in mends:
        target = target.with_mend(one)
    with progress_bars() as report:
        card = run_audit(target, plan, out, mends=mends, progress=lambda d, t: report("audit", d, t))
    if mends:
        write_states(base, target, out / "states.json")
    show_scorecard(card, out, as_json)


@app.command()
def mend(
    method: Annotated[str, typer.Argument(help="See: vlmend list methods; auto chooses one on a validation split.")],
    model: Annotated[str, typer.Option(help="A hub name, a folder, or an embedded model.")],
    out: Annotated[Path, typer.Option(help="Folder for the mend.")],
    parameters: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter, as k=v; may be given again.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file to fit on; built-in anchors unless given.")] = None,
    quick: Annotated[bool, typer.Option(help="With auto: fewer candidates and requests.")] = False,
    seed: int = 0,
    device: Device = None,
    dtype: DTypeOption = "auto",
    blocks: Blocks = None,
    as_json: Json = False,
) -> None:
    """Fit a mend and save it; `auto` chooses method and strength on a validation split."""
    from dataclasses import asdict

    from vlmend import registry
    from vlmend.studies.auto import choose_mend

    dataset = _anchors(data)
    if method == "auto":
        if parameters:
            raise UsageError("auto takes no --set: it chooses the parameters.", "Name a method to set its parameters.")
        with progress_bars() as progress:
            fitted = choose_mend(
                _load(model, device, dtype, blocks), dataset, out, quick=quick, seed=seed, progress=progress
            )
    else:
        made = registry.make_method(method, _pairs(parameters or []))
        fitted = made.fit(_load(model, device, dtype, blocks), dataset, seed=seed)
        fitted.save(out)
    if as_json:
        print(json.dumps(asdict(fitted.card), indent=2))
        return
    dose = list(fitted.card.dose.values())
    how_hard = f", dose {min(dose):.3f} to {max(dose):.3f}" if dose else ""
    kept = f" {fitted.card.parameters}" if method == "auto" else ""
    out_console.print(
        f"{fitted.card.method}{kept} for {model}: {len(fitted.edits)} edits{how_hard}, in {out}", highlight=False
    )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is what the others are compared with.")],
    out: Annotated[Path, typer.Option(help="The page to write.")],
    show_text: Annotated[bool, typer.Option(help="Put requests and replies on the page.")] = False,
) -> None:
    """Write one self-contained page about runs."""
    from vlmend.report.compare import read_run
    from vlmend.report.html import write_report

    write_report([read_run(run) for run in runs], out, show_text=show_text)
    out_console.print(f"{out}")


@app.command()
def compare(
    model: Model,
    methods: Annotated[
        str, typer.Option(help="Methods, separated by commas, or all; settings as cmrm:alpha=0.6:anchors=all.")
    ] = "all",
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a fitted mend; may be given again.")] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file to fit on; built-in anchors unless given.")] = None,
    test: Annotated[str | None, typer.Option(help="JSONL file to test on; built-in held-out unless given.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Requests of each kind.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for mends, replies, defences.json and defences.html.")] = Path(
        "runs/compare"
    ),
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 24,
    seed: int = 0,
    device: Device = None,
    dtype: DTypeOption = "auto",
    blocks: Blocks = None,
    as_json: Json = False,
) -> None:
    """Compare defences on the same samples: safety, price, sight, time and what each needs."""
    from vlmend.core.mend import Mend
    from vlmend.data.layouts import read_data
    from vlmend.report.study import write_defences
    from vlmend.studies.defences import compare as run_compare
    from vlmend.studies.defences import parse_defences
    from vlmend.studies.measuring import Sizes, panels

    wanted = parse_defences(methods)
    given = {folder.name: Mend.load(folder) for folder in mend or []}
    sizes = Sizes(limit, limit, limit, limit, max_new_tokens)
    asked = panels(sizes, "held_out", read_data(test) if test else None)
    target = _load(model, device, dtype, blocks)
    with progress_bars() as progress:
        content = run_compare(target, wanted, given, _anchors(data), asked, sizes, out, seed=seed, progress=progress)
    write_defences(content, out / "defences.html")
    if as_json:
        print(json.dumps(content, indent=2))
        return
    show_defences(content)
    out_console.print(f"page: {out / 'defences.html'}   rows: {out / 'defences.json'}", soft_wrap=True)


@app.command()
def study(
    what: Annotated[Literal["cmrm"], typer.Argument(help="cmrm: every table and figure of its paper.")],
    model: Annotated[str, typer.Option(help="A hub name, a folder, or an embedded model.")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    quick: Annotated[bool, typer.Option(help="Fewer requests and settings.")] = False,
    data: Annotated[
        list[str] | None, typer.Option(help="Further set: FILE.jsonl, vlsafe:FILE:IMAGES, jailbreak_llms:FILE.")
    ] = None,
    parts: Annotated[str, typer.Option(help="Parts, separated by commas; all unless given.")] = "",
    seed: int = 0,
    device: Device = None,
    dtype: DTypeOption = "auto",
    blocks: Blocks = None,
    as_json: Json = False,
) -> None:
    """Study a method on a model; stopped, the same command goes on where it was."""
    from vlmend.data.layouts import read_data
    from vlmend.report.study import write_study
    from vlmend.studies.cmrm import study_cmrm
    from vlmend.studies.lab import full_plan, quick_plan

    sets = [read_data(text) for text in data or []]
    names = tuple(part.strip() for part in parts.split(",") if part.strip())
    with progress_bars() as progress:
        folder = study_cmrm(
            _load(model, device, dtype, blocks), _anchors(None), sets, out, quick_plan() if quick else full_plan(),
            seed=seed, progress=progress, parts=names,
        )  # fmt: skip
    write_study(out, out / "study.html")
    if as_json:
        print(json.dumps({file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}, indent=2))
        return
    out_console.print(f"page: {out / 'study.html'}   tables: {folder}", soft_wrap=True)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option(help="Fewer requests and no random control; under 4 minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    model: Annotated[str, typer.Option(help="An embedded model, or any other.")] = "phantom",
) -> None:
    """Audit, mend and prove it on the embedded model."""
    from vlmend.demo import demo as run_demo
    from vlmend.report.compare import headline, read_run, warnings_of

    out = out.with_name(f"{out.name}-quick") if quick else out
    with progress_bars() as progress:
        page = run_demo(out, model=model, quick=quick, progress=progress)
    base, *others = [read_run(out / n) for n in ("base", "cmrm", "random") if (out / n / "scorecard.json").exists()]
    show_runs([base, *others])
    out_console.print(headline(base, others))
    for run in others:
        for warning in warnings_of(base, run):
            out_console.print(f"note ({run.name}): {warning}")
    out_console.print(f"report: {page}")


@app.command(name="list")
def list_(
    what: Annotated[Literal["methods", "suites", "models", "data"], typer.Argument()], as_json: Json = False
) -> None:
    """List what is there."""
    rows = listed(what)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(*rows[0].keys(), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(str, row.values()))
    out_console.print(table)


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(help="Also load this model and say what was found.")] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has, and what a model is made of."""
    found = machine()
    if model is not None:
        vlm = _load(model, None, "auto", None)
        found |= {
            "model": model,
            "class": type(vlm.model).__name__,
            "decoder blocks": f"{vlm.layers} at {vlm.anatomy.blocks_path}, width {vlm.anatomy.width}",
            "vision tower": vlm.anatomy.vision_path,
            "image token": vlm.anatomy.image_token_id,
            "fingerprint": vlm.model_digest,
        }
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        out_console.print(f"{key:>18}  {value}", highlight=False)


def main() -> None:
    """Run the command line; every error is one message, no traceback unless `--debug` is given."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app(args=[a for a in arguments if a != "--debug"], standalone_mode=False)
        if code == STOPPED:  # typer's own answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except VlmendError as problem:
        _fail(f"error[{problem.code}] {problem.message}\n  {problem.hint}", problem.exit_code, debug)
    except TyperException as problem:
        cast(Any, problem).show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped. Run the same command again to go on: finished replies are kept.", STOPPED, False)
    except Exception as problem:  # a bug of ours, or a library's: say so in one line
        hint = "This is not your mistake. Run it again with --debug and report what it prints."
        _fail(f"error[internal] {type(problem).__name__}: {problem}\n  {hint}", 3, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    err_console.print(message, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


def _load(model: str, device: str | None, dtype: Literal["auto", "float32", "float16", "bfloat16"], blocks: str | None):
    from vlmend import registry
    from vlmend.models.load import load

    with err_console.status(f"loading {model}"):
        return load(registry.model_folder(model), name=model, device=device, dtype=dtype, blocks=blocks)


def _anchors(data: Path | None) -> Dataset:
    """What mends are fitted on: the user's rows, or the built-in anchors."""
    from vlmend.data.sources import builtin_dataset, read_jsonl

    return read_jsonl(data) if data else builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")


def _pairs(parameters: list[str]) -> dict[str, Any]:
    bad = [text for text in parameters if "=" not in text]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is no k=v.", "Write for example --set alpha=0.8.")
    return dict(text.split("=", 1) for text in parameters)
