"""Verbs that mend and compare mends: mend, compare, study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlmend.cli.options import (
    ApiBase,
    Json,
    Judges,
    Limit,
    LoadOptions,
    Model,
    ModelOrOption,
    OldModel,
    app,
    names_of,
    one_model,
    opened_chat,
    with_loading,
)
from vlmend.cli.progress import progress_bars
from vlmend.core.files import read_json
from vlmend.errors import UsageError
from vlmend.printing import out_console, print_json, say, show_curves, show_defences, show_runs

if TYPE_CHECKING:
    from vlmend.core.mend import Mend

__all__ = ["compare", "mend", "pairs", "study"]


MethodOrAuto = Annotated[
    str,
    typer.Argument(
        help="See: vlmend list methods; auto chooses one on a validation split.",
        autocompletion=names_of("methods", "auto"),
    ),
]


PHOTO_BLANK_NOISE = "photo,blank,noise"

Carriers = Annotated[
    str,
    typer.Option(
        help=f"Of curves: {PHOTO_BLANK_NOISE} unless given; where --test is attacked also typographic, optimised."
    ),
]


@app.command()
@with_loading
def mend(
    method: MethodOrAuto,
    out: Annotated[Path, typer.Option(help="Folder for the mend.")],
    model: ModelOrOption = None,
    named: OldModel = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter, as k=v; may be given again.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file to fit on; built-in data unless given.")] = None,
    quick: Annotated[bool, typer.Option(help="With auto: fewer candidates and requests.")] = False,
    judge: Judges = None,
    seed: int = 0,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
) -> None:
    """Fit a mend and save it; `auto` chooses method and strength on a validation split."""
    from dataclasses import asdict

    model = one_model(model, named)
    if method == "auto" and parameters:
        raise UsageError("auto takes no --set: it chooses the parameters.", "Name a method to set its parameters.")
    with progress_bars(model) as report:
        from vlmend.audit.preflight import check_names_of
        from vlmend.registry import make_method

        check_names_of(
            model, [] if data is None else [str(data)],
            lambda: method == "auto" or make_method(method, pairs(parameters or [])),
            out=out, judges=judge or (), options=loading,
        )  # fmt: skip
        from vlmend import face

        if method == "auto":
            fitted = face.choose_mend(
                model, out, data, judges=judge, quick=quick, seed=seed, options=loading, api_base=api_base,
                progress=report,
            )  # fmt: skip
        else:
            chosen = make_method(method, pairs(parameters or []))
            fitted = face.fit(chosen, model, data, seed=seed, options=loading, api_base=api_base, progress=report)
            fitted.save(out)
    if as_json:
        print_json("mend", asdict(fitted.card))
        return
    _tell(fitted, method, model, out)


@app.command()
@with_loading
def compare(
    model: Model,
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, separated by commas, or all that fit the model; settings as cmrm:alpha=0.6.",
            autocompletion=names_of("methods", "all"),
        ),
    ] = "all",
    mend: Annotated[list[Path] | None, typer.Option(help="Folder of a fitted mend; may be given again.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="JSONL to fit on; the built-in calibration set unless given.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="JSONL file to test on; built-in held-out unless given.")] = None,
    suite: Annotated[str, typer.Option(help="Of a dual encoder: suites or axes to audit each mend by.")] = "",
    limit: Limit = None,
    out: Annotated[Path, typer.Option(help="Folder for mends, replies, numbers and page.")] = Path("runs/compare"),
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 24,
    curves: Annotated[bool, typer.Option(help="Each method at several strengths: a curve each.")] = False,
    carriers: Carriers = "",
    judge: Judges = None,
    seed: int = 0,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
) -> None:
    """Compare mends on the same samples: what each helps, what it costs and what it needs."""
    with progress_bars(model) as report:
        wanted = _wanted(carriers, curves=curves)
        from vlmend.audit.plan import check_names, names_in
        from vlmend.audit.preflight import check_names_of
        from vlmend.studies.carried import carriers_in
        from vlmend.studies.defences import parse_defences

        check_names_of(
            model, [str(text) for text in (data, test) if text is not None], lambda: parse_defences(methods),
            lambda: check_names(names_in(suite)), lambda: wanted and carriers_in(wanted), out=out,
            judges=judge or (), mends=mend or (), options=loading,
        )  # fmt: skip
        from vlmend import face

        content = face.compare(
            model, methods, out, mends=mend or (), data=data, test=test, suites=suite, judges=judge, limit=limit,
            max_new_tokens=max_new_tokens, seed=seed, options=loading, api_base=api_base, progress=report,
            curves=wanted,
        )  # fmt: skip
    if as_json:
        print_json("curves" if curves else "defences", content)
    else:
        _tell_compared(content, out)


@app.command()
@with_loading
def study(
    what: Annotated[
        Literal["cmrm", "transfer"],
        typer.Argument(help="cmrm: every table and figure of its paper. transfer: attacks on each model, put to all."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    model: ModelOrOption = None,
    named: OldModel = None,
    quick: Annotated[bool, typer.Option(help="Fewer requests and settings.")] = False,
    data: Annotated[
        list[str] | None, typer.Option(help="Further set: FILE.jsonl, vlsafe:FILE:IMAGES, jailbreak_llms:FILE.")
    ] = None,
    parts: Annotated[str, typer.Option(help="Parts, separated by commas; all unless given.")] = "",
    judge: Judges = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="transfer: an attack, as pgd or pgd:restarts=2; may be given again. pgd unless given."),
    ] = None,
    epsilon: Annotated[str, typer.Option(help="transfer: largest change of a pixel, 4/255 or 0.0157.")] = "4/255",
    steps: Annotated[int, typer.Option(min=1, help="transfer: gradient steps, or tries.")] = 20,
    limit: Limit = None,
    seed: int = 0,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Study a method on a model, or attacks on several (MODEL,MODEL+MEND); stopped, the same command resumes."""
    model = one_model(model, named)
    if what == "transfer":
        from vlmend.cli.attacking import show_transfer

        show_transfer(model, attack or ["pgd"], data, epsilon, steps, limit, seed, loading, out, as_json=as_json)
        return
    folder = _study_cmrm(model, out, data or [], parts, judge, seed, loading, quick=quick)
    if as_json:
        print_json("study", {file.stem: read_json(file) for file in sorted(folder.glob("*.json"))})
        return
    out_console.print(f"page: {out / 'study.html'}   tables: {folder}", soft_wrap=True)


def _study_cmrm(
    model: str, out: Path, data: list[str], parts: str, judge: list[str] | None, seed: int,
    loading: LoadOptions, *, quick: bool,
) -> Path:  # fmt: skip
    """Make the study of CMRM and its page; where its tables are."""
    with progress_bars(model) as progress:
        from vlmend.audit.judging import JUDGES, made_judges
        from vlmend.audit.plan import names_in
        from vlmend.audit.preflight import check_names_of
        from vlmend.data.layouts import read_data
        from vlmend.data.sources import builtin_dataset
        from vlmend.report.study import write_study
        from vlmend.studies.cmrm.lab import full_plan, quick_plan
        from vlmend.studies.cmrm.study import check_parts, study_cmrm

        names = names_in(parts)
        check_names_of(model, data, lambda: check_parts(names), out=out, judges=judge or JUDGES, options=loading)
        sets = [read_data(text) for text in data]
        target = opened_chat(model, loading, "study")
        progress("load", 1, 1)
        folder = study_cmrm(
            target, builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor"), sets, out,
            quick_plan() if quick else full_plan(), judges=made_judges(judge or JUDGES), seed=seed,
            progress=progress, parts=names,
        )  # fmt: skip
    write_study(out, out / "study.html")
    return folder


def _wanted(carriers: str, *, curves: bool) -> str:
    """The carriers of the curves that are wanted; empty where none are.

    Raises:
        UsageError: Carriers without curves.
    """
    if carriers and not curves:
        raise UsageError("--carriers are those of curves.", "Add --curves, or leave --carriers out.")
    return (carriers or PHOTO_BLANK_NOISE) if curves else ""


def _tell_compared(content: dict[str, Any], out: Path) -> None:
    """What a comparison gave, and where its page is."""
    from vlmend.report.study import curves_sentence

    name = "curves" if "carriers" in content else "defences"
    if name == "curves":
        show_curves(content, curves_sentence(content))
    elif "judge" in content:
        show_defences(content)
    else:
        _show_audits(content)
    out_console.print(f"page: {out / f'{name}.html'}   rows: {out / f'{name}.json'}", soft_wrap=True)


def _show_audits(content: dict[str, Any]) -> None:
    """A comparison of audits: what a report of them says first, and the measures by which they are compared."""
    from vlmend.report.compare import headline
    from vlmend.report.shared import read_runs

    base, *others = read_runs([Path(row["run"]) for row in content["rows"]])
    out_console.print(headline(base, others), highlight=False, markup=False, soft_wrap=True)
    show_runs([base, *others])
    for name, why in content["left_out"].items():
        out_console.print(f"left out: {name}: {why}", highlight=False, markup=False, soft_wrap=True)


def _tell(fitted: Mend, method: str, model: str, out: Path) -> None:
    """What a fit came to, for people."""
    from vlmend.core.mend import at_sites

    dose = list(at_sites(fitted.card.dose).values())
    how_hard = f", relative edit norm {min(dose):.3f} to {max(dose):.3f}" if dose else ""
    kept = f" {fitted.card.parameters}" if method == "auto" else ""
    edits = "1 edit" if len(fitted.edits) == 1 else f"{len(fitted.edits)} edits"
    out_console.print(
        f"{fitted.card.method}{kept} for {model}: {edits}{how_hard}, in {out}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for note in fitted.card.notes:
        say(note)


def pairs(parameters: list[str]) -> dict[str, Any]:
    """`--set k=v` as parameters."""
    bad = [text for text in parameters if "=" not in text]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is no k=v.", "Write for example --set alpha=0.8.")
    return dict(text.split("=", 1) for text in parameters)
