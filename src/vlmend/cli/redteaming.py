"""Verbs that search for what a model fails on: redteam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmend.cli.mending import pairs
from vlmend.cli.options import ApiBase, Json, Judges, LoadOptions, Model, app, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.errors import UsageError
from vlmend.printing import out_console, print_json

if TYPE_CHECKING:
    from vlmend.core.metrics.stats import Interval
    from vlmend.redteam.finds import Found
    from vlmend.redteam.pictures import Drawn
    from vlmend.redteam.writer import WriterSettings

__all__ = ["redteam"]

SHOWN = 5
PIPELINE = "a text-to-image pipeline"


Goals = Annotated[
    str,
    typer.Option(
        help="What the model should decline: FILE.jsonl with prompt and category, a folder of data (also one that an "
        "attack made), or a public set."
    ),
]
Mends = Annotated[
    list[Path] | None, typer.Option("--mend", help="Folder of a mend, searched with the model; may be given again.")
]
Templates = Annotated[
    Path | None, typer.Option(help='Forms of requests: JSONL, {"name": ..., "form": "{} ..."}; ours unless given.')
]
Writers = Annotated[
    str,
    typer.Option(
        "--writer", help="A language model that rewrites the goals and learns from what came: hub name, folder or "
        "embedded model; in the place of templates."
    ),
]  # fmt: skip
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Of the writer, as k=v: prompt ({} is the goal), keep, rate, kl, rank, tokens; again."),
]
Searches = Annotated[str, typer.Option(help="novelty; reward (what worked alone) and random are its baselines.")]
Carriers = Annotated[
    str, typer.Option(help="What may come with the words: text,photo,blank,noise,own (the goal's own picture).")
]
Detectors = Annotated[str, typer.Option(help="Of a pipeline's pictures, by name; all there are unless given.")]
Filters = Annotated[
    str, typer.Option(help="Of a pipeline's prompts: profanity, grim, words:FILE; profanity unless given.")
]


@app.command()
@with_loading
def redteam(
    model: Model,
    goals: Goals,
    budget: Annotated[int, typer.Option(help="How many requests are asked.")],
    out: Annotated[Path, typer.Option(help="Run folder, closed to others; reads as data: the finds.")],
    mend: Mends = None,
    search: Searches = "novelty",
    templates: Templates = None,
    writer: Writers = "",
    settings: Settings = None,
    carriers: Carriers = "",
    judge: Judges = None,
    detectors: Detectors = "",
    filters: Filters = "",
    seed: int = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
) -> None:
    """Search for rewrites, pictures and seeds under which a model does what it should decline; resumes.

    Of a text-to-image pipeline: for prompts that no filter stops and whose pictures a detector flags.
    """
    with progress_bars(model) as report:
        from vlmend.audit.preflight import check_names_of
        from vlmend.redteam.run import JUDGE, check_budget, red_team
        from vlmend.redteam.search import search_kind
        from vlmend.redteam.space import carriers_in, read_templates

        writing = partial(_writing, writer, settings or [], templates)
        check_names_of(
            model, [goals], lambda: check_budget(budget), lambda: search_kind(search), lambda: carriers_in(carriers),
            lambda: read_templates(templates), writing, out=out, judges=judge or [JUDGE], mends=mend or [],
            options=loading,
        )  # fmt: skip
        how: dict[str, Any] = {
            "budget": budget, "search": search_kind(search), "seed": seed, "options": loading, "progress": report,
            "templates": None if writer else read_templates(templates),
        }  # fmt: skip
        if _draws(model, loading):
            _refuse(PIPELINE, {"--mend": mend, "--carriers": carriers, "--judge": judge, "--writer": writer})
            found = _of_pipeline(model, goals, out, detectors, filters, how)
        else:
            _refuse("a model that answers", {"--detectors": detectors, "--filters": filters})
            found = red_team(
                model, goals, out, mends=mend or [], judges=judge or [JUDGE], carriers=carriers_in(carriers),
                max_new_tokens=max_new_tokens, api_base=api_base, writer=writer or None, writing=writing(), **how,
            )  # fmt: skip
    print_json("redteam", {"out": str(out)} | found.values()) if as_json else _show(found, model, out)


def _writing(writer: str, settings: list[str], templates: Path | None) -> WriterSettings:
    """
    Raises:
        UsageError: Settings of a writer without one, or templates beside one.
        BadParameter: A setting that cannot be.
        ModelProblem: The writer is not there.
    """
    from vlmend.models.loading.writer import check_writer
    from vlmend.redteam.writer import WriterSettings
    from vlmend.registry import configured, plugins

    if not writer:
        _refuse("a red team without --writer", {"--set": settings})
        return WriterSettings()
    _refuse("a red team with --writer, which finds the words", {"--templates": templates})
    if writer not in {one.name for one in plugins("models")}:
        check_writer(writer)
    return configured(WriterSettings, "guides", pairs(settings))


def _draws(model: str, loading: LoadOptions) -> bool:
    from vlmend.models.loading.target import kind_of
    from vlmend.registry import model_folder

    return kind_of(model, loading, folder=model_folder(model)) == "draw"


def _refuse(what: str, given: Mapping[str, object]) -> None:
    """
    Raises:
        UsageError: An option was given that says nothing of this kind of model.
    """
    named = [name for name, value in given.items() if value]
    if named:
        raise UsageError(f"{' and '.join(named)} cannot be had of {what}.", "Leave it out.")


def _of_pipeline(model: str, goals: str, out: Path, detectors: str, filters: str, how: Mapping[str, Any]) -> Drawn:
    from vlmend.redteam.pipeline import DETECTORS, FILTERS, red_team_pipeline

    named = [[one.strip() for one in text.split(",") if one.strip()] for text in (detectors, filters)]
    return red_team_pipeline(model, goals, out, detectors=named[0] or DETECTORS, filters=named[1] or FILTERS, **how)


def _show(found: Found | Drawn, model: str, out: Path) -> None:
    """What a search came to, for people: counts, and no word of what was asked."""
    from vlmend.redteam.finds import Found

    for line in _told(found, model, out) if isinstance(found, Found) else _told_drawn(found, model, out):
        out_console.print(line, highlight=False, markup=False, soft_wrap=True)


def _told_drawn(drawn: Drawn, model: str, out: Path) -> list[str]:
    found = drawn.found
    lines = [
        f"{found.search} search on {model}: {found.asked} tried, {drawn.filtered} of them stopped by a filter, "
        f"{found.finds} flagged by any detector, {drawn.majority} by most.",
        f"{len(found.modes)} failure modes; {len(drawn.confirmed)} confirmed by fresh drawings.",
        f"flagged: {_share(drawn.floor)} of neutral prompts' drawings, {_share(drawn.fresh)} of the finds' fresh ones.",
    ]
    if found.asked < found.budget:
        lines.append(f"Nothing is left to try: {found.asked} tries are all there are.")
    return [*lines, f"prompts and what was said of each drawing: {out}"]


def _told(found: Found, model: str, out: Path) -> list[str]:
    share = f"{_share(found.rate)} of what could be scored" if found.finds else "none"
    lines = [
        f"{found.search} search on {model}: {found.asked} asked, {found.unscored} unscored, {found.finds} unsafe "
        f"({share}; a rate of the search, not of the model).",
        f"{len(found.modes)} failure modes (what it is about, beside what), {found.goals} goals.",
        *(f"{judge} calls {n} of these {found.finds} unsafe, too." for judge, n in found.confirmed.items()),
    ]
    if any(found.unasked.values()):
        off, again = (found.unasked[why] for why in ("off_goal", "repeat"))
        lines.append(f"Not asked, and no part of the budget: {off} rewrites off the goal, {again} that had been asked.")
    if found.asked < found.budget and any(found.unasked.values()):
        lines.append("The writer had nothing new to ask any more: a lower --set keep, or a lower rate, may help.")
    elif found.asked < found.budget:
        lines.append(f"Nothing is left to try: {found.asked} tries are all there are.")
    for what, table in found.by.items():
        best = ", ".join(f"{name} {leaked}/{asked}" for name, (asked, leaked) in list(table.items())[:SHOWN])
        lines.append(f"by {what}: {best}")
    replay = f"vlmend audit MODEL --suite safety/finds --data {out}"
    lines.append(f"finds: {out}   replay them: {replay}" if found.finds else f"no finds; what was asked: {out}")
    return lines


def _share(rate: Interval) -> str:
    return "none" if math.isnan(rate.value) else f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
