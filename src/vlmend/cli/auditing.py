"""Verbs that measure: audit, gate, label, rejudge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmend.cli.options import (
    ApiBase,
    Gates,
    Json,
    Judges,
    JUnit,
    LoadOptions,
    Markdown,
    Model,
    app,
    with_loading,
)
from vlmend.cli.progress import progress_bars
from vlmend.printing import out_console, show_gates, show_labels, show_scorecard

if TYPE_CHECKING:  # a verb's own parameters have light types only: `vlmend --help` reads them
    from vlmend.core.gates import Gate
    from vlmend.core.measures import Scorecard

__all__ = ["audit", "gate", "label", "rejudge_"]

Suites = Annotated[
    str,
    typer.Option(help="Suites or axes, separated by commas: safety,utility unless given; fairness,robustness of a dual "
                      "encoder; fairness of data:FILE."),
]  # fmt: skip


@app.command()
@with_loading
def audit(
    model: Model,
    suite: Suites = "",
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a mend; may be given again.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Requests of each kind.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="FILE.jsonl, a folder of data or a public set (vlmend list data); may be given again."),
    ] = None,
    judge: Judges = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/audit"),
    seed: int = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="How often each request is asked.")] = 1,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    gates: Gates = None,
    junit: JUnit = None,
    markdown: Markdown = None,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
) -> None:
    """Measure a model, with or without mends, or a data set; exit code 1 where a gate fails."""
    from vlmend.core.gates import parse_gate

    bounds = [parse_gate(text) for text in gates or []]
    with progress_bars(model) as report:
        from vlmend import face

        card = face.audit(
            model, suite, out, mends=mend or (), data=data, judges=judge, limit=limit, max_new_tokens=max_new_tokens,
            temperature=temperature, epochs=epochs, seed=seed, options=loading, api_base=api_base, progress=report,
        )  # fmt: skip
    show_scorecard(card, out, as_json)
    _check(card, bounds, junit, markdown, as_json)


@app.command()
def gate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    gates: Annotated[list[str], typer.Argument(help='Bounds, as "safety.unsafe_rate[original].high <= 0.10".')],
    junit: JUnit = None,
    markdown: Markdown = None,
    as_json: Json = False,
) -> None:
    """Hold a finished run to bounds; exit code 1 where one fails."""
    from vlmend.core.gates import parse_gate
    from vlmend.core.measures import Scorecard

    bounds = [parse_gate(text) for text in gates]
    _check(Scorecard.finished(run), bounds, junit, markdown, as_json)


@app.command(name="rejudge")
def rejudge_(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    judge: Judges = None,
    as_json: Json = False,
) -> None:
    """Have other judges read the replies of a run; the model is not asked again."""
    from vlmend.audit.judging import JUDGES, made_judges
    from vlmend.audit.run import rejudge

    with progress_bars() as report:
        card = rejudge(run, made_judges(judge or JUDGES), report)
    show_scorecard(card, run, as_json)


@app.command()
def label(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Replies to label, drawn at random.")] = 100,
    name: Annotated[str | None, typer.Option(help="Who labels; your user name unless given.")] = None,
    suite: Annotated[str, typer.Option(help="Suites, separated by commas; every judged one unless given.")] = "",
    per_condition: Annotated[bool, typer.Option("--per-condition", help="As many of each condition.")] = False,
    images: Annotated[bool, typer.Option("--images", help="Show images, and with them the condition.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address only.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Tell agreement and corrected rates.")] = False,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Label replies by hand, blind to what gave them; then see how far judges agree with people."""
    if report:
        from vlmend.audit.labels.report import label_report

        show_labels(label_report(run, seed=seed), as_json)
        return
    from getpass import getuser

    from vlmend.audit.labels.labelling import Session, label_file, queue_of
    from vlmend.audit.labels.page import serve
    from vlmend.core.files import held

    names = tuple(part.strip() for part in suite.split(",") if part.strip())
    file = label_file(run, name or getuser())
    told = "{} of {} labelled, in {}".format
    queue = queue_of(run, n, seed, names, per_condition=per_condition, images=images)
    with held(file.parent, f".{file.name}.lock"):
        session = Session(queue, file)
        out_console.print(told(session.done, len(session.queue), file), highlight=False, soft_wrap=True)
        serve(
            session, run / "images", port=port, open_browser=not no_open,
            ready=lambda address: out_console.print(f"{address}   stop with Ctrl-C", highlight=False, soft_wrap=True),
        )  # fmt: skip
        out_console.print(told(session.done, len(session.queue), file), highlight=False, soft_wrap=True)


def _check(card: Scorecard, bounds: list[Gate], junit: Path | None, markdown: Path | None, as_json: bool) -> None:
    """Hold a scorecard to its gates, write what build systems read, and leave with 1 where one fails."""
    from vlmend.core.gates import check_gates
    from vlmend.report.gates import write_junit, write_markdown

    results = check_gates(card, bounds)
    if junit is not None:
        write_junit(card, results, junit)
    if markdown is not None:
        write_markdown(card, results, markdown)
    show_gates(card, results, as_json)
    if any(not one.passed for one in results):
        raise typer.Exit(1)
