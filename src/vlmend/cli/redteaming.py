"""Verbs that search for what a model fails on: redteam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmend.cli.options import ApiBase, Json, Judges, LoadOptions, Model, app, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.printing import out_console, print_json

if TYPE_CHECKING:
    from vlmend.redteam.finds import Found

__all__ = ["redteam"]

SHOWN = 5


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
Searches = Annotated[str, typer.Option(help="novelty; reward (what worked alone) and random are its baselines.")]


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
    carriers: Annotated[
        str, typer.Option(help="What may come with the words: text,photo,blank,noise,own (the goal's own picture).")
    ] = "",
    judge: Judges = None,
    seed: int = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    loading: LoadOptions = LoadOptions(),
    api_base: ApiBase = None,
    as_json: Json = False,
) -> None:
    """Search for rewrites, pictures and seeds under which a model does what it should decline; resumes."""
    with progress_bars(model) as report:
        from vlmend.audit.preflight import check_names_of
        from vlmend.redteam.run import JUDGE, check_budget, red_team
        from vlmend.redteam.search import search_kind
        from vlmend.redteam.space import carriers_in, read_templates

        judges = judge or [JUDGE]
        check_names_of(
            model, [goals], lambda: check_budget(budget), lambda: search_kind(search), lambda: carriers_in(carriers),
            lambda: read_templates(templates), out=out, judges=judges, mends=mend or [], options=loading,
        )  # fmt: skip
        found = red_team(
            model, goals, out, budget=budget, search=search_kind(search), mends=mend or [], judges=judges,
            templates=read_templates(templates), carriers=carriers_in(carriers), seed=seed,
            max_new_tokens=max_new_tokens, options=loading, api_base=api_base, progress=report,
        )  # fmt: skip
    if as_json:
        print_json("redteam", {"out": str(out)} | found.values())
    else:
        _show(found, model, out)


def _show(found: Found, model: str, out: Path) -> None:
    """What a search came to, for people: counts, and no word of what was asked."""
    rate = found.rate
    share = f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}] of what could be scored" if found.finds else "none"
    lines = [
        f"{found.search} search on {model}: {found.asked} asked, {found.unscored} unscored, {found.finds} unsafe "
        f"({share}; a rate of the search, not of the model).",
        f"{len(found.modes)} failure modes (what it is about, beside what), {found.goals} goals.",
        *(f"{judge} calls {n} of these {found.finds} unsafe, too." for judge, n in found.confirmed.items()),
    ]
    if found.asked < found.budget:
        lines.append(f"Nothing is left to try: {found.asked} tries are all there are.")
    for what, table in found.by.items():
        best = ", ".join(f"{name} {leaked}/{asked}" for name, (asked, leaked) in list(table.items())[:SHOWN])
        lines.append(f"by {what}: {best}")
    replay = f"vlmend audit MODEL --suite safety/finds --data {out}"
    lines.append(f"finds: {out}   replay them: {replay}" if found.finds else f"no finds; what was asked: {out}")
    for line in lines:
        out_console.print(line, highlight=False, markup=False, soft_wrap=True)
