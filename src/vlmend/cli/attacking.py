"""Verbs that make data of data and a model: attack."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmend.cli.mending import pairs
from vlmend.cli.options import Json, Limit, LoadOptions, Model, app, names_of, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.errors import BadParameter
from vlmend.printing import out_console, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlmend.attacks.running import Attacked
    from vlmend.core.attacks import AbstractAttack
    from vlmend.core.metrics.stats import Interval
    from vlmend.core.targets import Target

__all__ = ["attack", "epsilon_of", "show_transfer"]


@app.command()
@with_loading
def attack(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="See: vlmend list attacks.", autocompletion=names_of("attacks"))
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the attacked data; must not hold other data.")],
    epsilon: Annotated[str, typer.Option(help="Largest change of a pixel: 4/255, or 0.0157.")] = "4/255",
    steps: Annotated[int, typer.Option(min=0, help="Gradient steps, or tries.")] = 40,
    data: Annotated[
        str | None,
        typer.Option(
            help="Rows with image and answers: FILE.jsonl, a folder, a public set; built-in pictures unless given."
        ),
    ] = None,
    mend: Annotated[
        list[Path] | None, typer.Option(help="Folder of a mend, attacked with the model; may be given again.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Folder of an earlier attack: only rows that the model survived are attacked.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter, as k=v; may be given again.")
    ] = None,
    limit: Limit = None,
    seed: int = 0,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Change pictures within epsilon, or a few words, so that a model fails; stopped, the same command resumes."""
    from vlmend import face
    from vlmend.registry import make_attack

    made, most = make_attack(name, pairs(parameters or [])), epsilon_of(epsilon)
    with progress_bars() as report:
        found = face.attack(
            made, model, data, epsilon=most, steps=steps, out=out, mends=mend or (), after=after, limit=limit,
            seed=seed, options=loading, progress=report,
        )  # fmt: skip
    if as_json:
        print_json("attack", _values(found, out))
        return
    _show(found, made, model, out)


def show_transfer(
    models: str, attacks: list[str], data: list[str] | None, epsilon: str, steps: int, limit: int | None, seed: int,
    loading: LoadOptions, out: Path, *, as_json: bool,
) -> None:  # fmt: skip
    """Make the study `transfer` and say where it is."""
    from vlmend.audit.plan import names_in
    from vlmend.core.attacks import Budget
    from vlmend.core.metrics.stats import Interval
    from vlmend.data.layouts import PLUS, read_data
    from vlmend.report.study import write_transfer
    from vlmend.studies.transfer import parse_attacks, study_transfer

    budget, made = Budget(epsilon_of(epsilon), steps), parse_attacks(attacks)
    named = {name: _opener(name, loading) for name in names_in(models)}
    rows = read_data(PLUS.join(data)) if data else None
    with progress_bars() as report:
        content = study_transfer(named, made, rows, budget, out, limit=limit, seed=seed, progress=report)
    write_transfer(content, out / "transfer.html")
    if as_json:
        print_json("transfer", content)
        return
    for mean in content["means"]:
        home, elsewhere = (
            Interval(*(mean[name][key] for key in Interval._fields)) for name in ("at_home", "elsewhere")
        )
        out_console.print(
            f"{mean['attack']}: {_said(home)} less often {content['right'][mean['attack']].lower()} than at random on "
            f"the model that it was made on, {_said(elsewhere)} on others.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    for name, why in content["left_out"].items():
        out_console.print(f"left out: {name}: {why}", highlight=False, markup=False, soft_wrap=True)
    out_console.print(f"page: {out / 'transfer.html'}   matrix: {out / 'transfer.json'}", soft_wrap=True)


def _opener(text: str, loading: LoadOptions) -> Callable[[], Target]:
    """How to open a model with its mends, `MODEL+MEND+MEND`; what cannot be read is said at once."""
    from vlmend.core.mend import Mend
    from vlmend.face import open_target
    from vlmend.registry import check_model

    name, *folders = text.split("+")
    check_model(name)
    mends = [Mend.load(Path(folder)) for folder in folders]

    def opened() -> Target:
        view = open_target(name, options=loading)
        for mend in mends:
            view = view.with_mend(mend)
        return view

    return opened


def _show(found: Attacked, attack: AbstractAttack[Any, Any], model: str, out: Path) -> None:
    """What an attack came to, for people."""
    from vlmend.registry import plugin

    name, right = attack.name, attack.right
    if not found.epsilon and not found.words and not found.drawn:
        told = f"{name} on {model}, {found.n} rows: epsilon 0 or no step, so nothing was changed. "
        lines = [f"{told}{right}: {_said(found.clean)}.", *found.data.notes, f"data: {out}, as they were"]
        for line in lines:
            out_console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    shown = found.epsilon or not (found.words or found.drawn)
    pixels = [f"epsilon {round(found.epsilon * 255)}/255"] if shown else []
    words, drawn = [f"{found.words} words"] * bool(found.words), ["drawn anew"] * found.drawn
    size = ", ".join([*pixels, *words, *drawn])
    out_console.print(
        f"{name} on {model}, {size}, {found.n} rows. {right}: {_said(found.clean)} "
        f"before, {_said(found.noise)} {attack.at_random}, {_said(found.attacked)} under attack.",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    for note in found.data.notes:
        out_console.print(note, highlight=False, markup=False, soft_wrap=True)
    axis = plugin("attacks", name).axis
    out_console.print(f"data: {out}   audit them: vlmend audit MODEL --suite {axis} --data {out}", soft_wrap=True)


def epsilon_of(text: str) -> float:
    """A share of black to white, from `4/255` or `0.0157`.

    Raises:
        BadParameter: It is no number.
    """
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError) as problem:
        raise BadParameter(f"epsilon={text!r} is no number.", "Write 4/255, or 0.0157.") from problem


def _said(share: Interval) -> str:
    """A share with its interval; of no rows none is known."""
    known = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
    return known if share.value == share.value else "not known"


def _values(found: Attacked, out: Path) -> dict[str, object]:
    shares = {"clean": found.clean, "noise": found.noise, "attacked": found.attacked}
    told = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in shares.items()}
    size = {"epsilon": found.epsilon, "words": found.words, "n": found.n}
    return {"out": str(out), **size, **told, "notes": list(found.data.notes)}
