"""Verbs that measure: audit, gate, rejudge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmend.cli.options import (
    ApiBase,
    Gates,
    Json,
    Judges,
    JUnit,
    Limit,
    LoadOptions,
    Markdown,
    Model,
    app,
    names_of,
    with_loading,
)
from vlmend.cli.progress import progress_bars
from vlmend.printing import (
    gate_rows,
    out_console,
    print_json,
    say,
    show_cautions,
    show_gates,
    show_plan,
    show_scorecard,
)

if TYPE_CHECKING:  # a verb's own parameters have light types only: `vlmend --help` reads them
    from vlmend.audit.plan import Plan
    from vlmend.audit.sharding import Shard
    from vlmend.core.gates import GateResult
    from vlmend.core.measures import Scorecard

__all__ = ["audit", "gate", "rejudge_"]

Rows = Annotated[
    list[str] | None,
    typer.Option(
        "--data", help="FILE.jsonl, a folder of data or a public set (vlmend list data); may be given again."
    ),
]  # fmt: skip
Reference = Annotated[str | None, typer.Option(help="A second model for suites that need one: see their pages.")]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Check what was asked for, say how much it is, and stop.")]
Part = Annotated[
    str | None,
    typer.Option(help="Ask one share only, 1/4 to 4/4; the same command without it then makes the scorecard."),
]
Ray = Annotated[
    str, typer.Option(help="Ask on a Ray cluster: local, auto, or its address (extra ray; docs/guides/scale.md).")
]
Workers = Annotated[int | None, typer.Option(min=1, help="With --ray: one a GPU unless given, or one a host.")]
Every = Annotated[bool, typer.Option("--all", help="Print every row of the scorecard.")]
Suites = Annotated[
    str,
    typer.Option(
        help="Suites or axes, separated by commas: safety,utility unless given; fairness,robustness of a dual encoder; "
        "fairness of data:FILE.",
        autocompletion=names_of("suites", "safety", "privacy", "fairness", "robustness", "utility"),
    ),
]  # fmt: skip


@app.command()
@with_loading
def audit(
    model: Model,
    suite: Suites = "",
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a mend; may be given again.")] = None,
    limit: Limit = None,
    data: Rows = None,
    judge: Judges = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/audit"),
    seed: int = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="How often each request is asked.")] = 1,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    reference: Reference = None,
    gates: Gates = None,
    junit: JUnit = None,
    markdown: Markdown = None,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
    only_plan: OnlyPlan = False,
    every: Every = False,
    shard: Part = None,
    ray: Ray = "",
    workers: Workers = None,
) -> None:
    """Measure a model, with or without mends, or a data set; exit code 1 where a gate fails."""
    part = _part(shard, ray, workers, {
        "--gate": gates, "--junit": junit, "--markdown": markdown, "--all": every, "--json": as_json and not only_plan,
    })  # fmt: skip
    with progress_bars("" if only_plan else model) as report:
        from vlmend.audit.plan import Plan, names_in
        from vlmend.audit.preflight import check_audit
        from vlmend.data.layouts import PLUS

        asked = PLUS.join(data) if data else None
        plan = Plan(names_in(suite), asked, limit, max_new_tokens, seed, temperature, epochs)
        check_audit(model, plan, out, mends=mend or (), judges=judge, gates=gates or (), options=loading,
                    reference=reference)  # fmt: skip
        if only_plan:
            _plan(model, plan, out, loading, as_json, reference=reference is not None, shard=part)
            return
        from vlmend import face

        if _in_parts((model, mend or (), loading, api_base), plan, out, part, ray, workers, report):
            return
        card = face.audit(
            model, plan, out, mends=mend or (), judges=judge, options=loading, api_base=api_base, progress=report,
            note=say, reference=reference,
        )  # fmt: skip
    _report(card, out, gates or [], junit, markdown, every, as_json)


@app.command()
def gate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    gates: Annotated[list[str], typer.Argument(help='Bounds, as "safety.unsafe_rate[original].high <= 0.10".')],
    junit: JUnit = None,
    markdown: Markdown = None,
    as_json: Json = False,
) -> None:
    """Hold a finished run to bounds; exit code 1 where one fails."""
    from vlmend.core.cautions import cautions
    from vlmend.core.measures import Scorecard
    from vlmend.errors import VlmendError
    from vlmend.report.compare import sentence
    from vlmend.report.gates import write_junit_error

    try:
        card = Scorecard.finished(run)
        results = _held(card, gates, junit, markdown)
    except VlmendError as problem:
        if junit is not None:
            write_junit_error(run, problem, junit)
        raise
    if as_json:
        told = {"model": card.model, "headline": sentence(card), "cautions": cautions(card)}
        print_json("gates", told | {"gates": gate_rows(results)})
    else:
        out_console.print(sentence(card), highlight=False, markup=False, soft_wrap=True)
        show_cautions(card)
        show_gates(results)
    _leave(results)


@app.command(name="rejudge")
def rejudge_(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    judge: Judges = None,
    every: Every = False,
    as_json: Json = False,
) -> None:
    """Have other judges read the replies of a run; the model is not asked again."""
    from vlmend.audit.judging import JUDGES, made_judges
    from vlmend.audit.run import rejudge

    with progress_bars() as report:
        card = rejudge(run, made_judges(judge or JUDGES), report)
    _report(card, run, [], None, None, every, as_json)


def _part(shard: str | None, ray: str, workers: int | None, results: Mapping[str, object]) -> Shard | None:
    """The share to ask, if one alone is wanted.

    Raises:
        BadParameter: There is no such share, or other options have no meaning beside it.
    """
    from vlmend.errors import BadParameter

    if workers is not None and not ray:
        raise BadParameter("--workers is told without --ray.", "Give --ray local too, or leave it out.")
    if shard is None:
        return None
    from vlmend.audit.sharding import Shard

    part = Shard.parse(shard)
    if ray:
        raise BadParameter("--shard and --ray do not go together: --ray asks every part.", "Leave one of them out.")
    if given := [option for option, value in results.items() if value]:
        raise BadParameter(
            f"--shard asks one part and makes no scorecard, so it has nothing for {', '.join(given)}.",
            "Leave that out here and give it to the same command without --shard, once all parts are asked.",
        )
    return part


def _plan(
    model: str, plan: Plan, out: Path, loading: LoadOptions, as_json: bool, *, reference: bool, shard: Shard | None
) -> None:
    """Say how much an audit, or a share of it, asks; of a model its config alone is read."""
    from vlmend.audit.preflight import SUBJECT, plan_size
    from vlmend.models.loading.target import kind_of, memory_of
    from vlmend.registry import model_folder

    if model.startswith(SUBJECT):
        kind, memory = "data", None
    else:
        folder = model_folder(model)
        kind, memory = kind_of(model, loading, folder=folder), memory_of(model, loading, folder=folder)
    size = plan_size(model, plan, out, kind, reference=reference, shard=shard)
    if as_json:
        print_json("plan", asdict(size) | {"memory": memory and asdict(memory)})
    else:
        show_plan(size)
        if memory is not None:
            out_console.print(f"{memory}.", highlight=False)


def _in_parts(
    opening: tuple[str, Sequence[Path], LoadOptions, str | None], plan: Plan, out: Path, part: Shard | None, ray: str,
    workers: int | None, report: Callable[[str, int, int], None],
) -> bool:  # fmt: skip
    """Ask one share, or all of them on a cluster where that is wanted; whether there is no more to do."""
    from vlmend.audit.cluster import Opening, ask_on_ray
    from vlmend.audit.sharding import ask_shard, shards_folder
    from vlmend.core.mend import Mend

    if part is None and not ray:
        return False
    model, mends, loading, api_base = opening
    where = Opening(model, [Mend.load(folder) for folder in mends], loading, api_base, str(Path.cwd()))
    if part is None:
        ask_on_ray(where, plan, out, ray, workers, report)
        return False
    count = ask_shard(*where.opened(plan), out, part, progress=report, note=say)
    say(f"{count} requests are answered in {shards_folder(out) / part.name}; when all shards are: the same command "
        "without --shard")  # fmt: skip
    return True


def _report(
    card: Scorecard, out: Path, gates: Sequence[str], junit: Path | None, markdown: Path | None, every: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Print a scorecard and what its gates say, and leave with 1 where one fails."""
    results = _held(card, gates, junit, markdown)
    if as_json:
        print_json("scorecard", asdict(card) | ({"gates": gate_rows(results)} if gates else {}))
    else:
        show_scorecard(card, out, every=every)
        show_gates(results)
    _leave(results)


def _held(card: Scorecard, gates: Sequence[str], junit: Path | None, markdown: Path | None) -> list[GateResult]:
    """Hold a scorecard to gates, and write what build systems read."""
    from vlmend.core.gates import check_gates, parse_gate
    from vlmend.report.gates import write_junit, write_markdown

    results = check_gates(card, [parse_gate(text) for text in gates])
    if junit is not None:
        write_junit(card, results, junit)
    if markdown is not None:
        write_markdown(card, results, markdown)
    return results


def _leave(results: Sequence[GateResult]) -> None:
    if any(not one.passed for one in results):
        raise typer.Exit(1)
