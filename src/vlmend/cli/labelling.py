"""The verb that asks people: label."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vlmend.cli.options import Json, app
from vlmend.errors import UsageError
from vlmend.printing import doubt, out_console, print_json, print_table

if TYPE_CHECKING:
    from vlmend.audit.labels.page import About as Kind
    from vlmend.audit.labels.session import Session

__all__ = ["label"]


About = Annotated[
    str, typer.Option(help="fairness: replies about two people who differ in their group alone, side by side.")
]
Against = Annotated[
    Path | None, typer.Option(help="With --about fairness: another run of the same questions on the other side.")
]
Rater = Annotated[
    list[str] | None,
    typer.Option(help="With --about fairness: NAME=VALUE on yourself, optional, kept apart; NAME= takes it back."),
]
By = Annotated[str, typer.Option(help="With --report --about fairness: by groups of this rater attribute.")]
Choose = Annotated[
    str, typer.Option(help="Replies worth most: uncertainty, disagreement or worst_group; a quarter stays random.")
]


@app.command()
def label(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Replies or pairs to label, drawn at random.")] = 100,
    name: Annotated[str | None, typer.Option(help="Who labels; your user name unless given.")] = None,
    about: About = "",
    against: Against = None,
    rater: Rater = None,
    suite: Annotated[str, typer.Option(help="Suites, separated by commas; all that fit unless given.")] = "",
    per_condition: Annotated[bool, typer.Option("--per-condition", help="As many of each condition.")] = False,
    images: Annotated[bool, typer.Option("--images", help="Show images, and with them the condition.")] = False,
    choose: Choose = "random",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address only.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Tell agreement and corrected rates.")] = False,
    by: By = "",
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Label replies by hand, blind to what gave them; then see how far judges agree with people."""
    from getpass import getuser

    from vlmend.audit.labels.choosing import as_choice
    from vlmend.audit.labels.labelling import queue_of
    from vlmend.audit.labels.session import Session, label_file

    _check(about, pairs_only=bool(against or rater or by), replies_only=per_condition or choose != "random")
    if report:
        _tell(run, against, by, seed, as_json=as_json, pairs=bool(about))
        return
    names, who = tuple(part.strip() for part in suite.split(",") if part.strip()), name or getuser()
    file = label_file(run, who)
    if about:
        _ask_pairs(run, n, seed, file.name, against, names, rater or [], port, images=images, no_open=no_open)
        return
    queue = queue_of(run, n, seed, names, per_condition=per_condition, images=images, choose=as_choice(choose))
    with _held(file):
        _serve(Session(queue, file), file, run, "replies", port, no_open)


def _check(about: str, *, pairs_only: bool, replies_only: bool) -> None:
    """Refuse options that do not go together."""
    if about not in ("", "fairness"):
        raise UsageError(f"Nothing can be labelled about {about!r}.", "Write --about fairness, or leave it out.")
    if not about and pairs_only:
        raise UsageError("--against, --rater and --by are about pairs.", "Write --about fairness, too.")
    if about and replies_only:
        raise UsageError("Pairs are drawn at random.", "Leave --per-condition and --choose out.")


def _ask_pairs(
    run: Path, n: int, seed: int, file_name: str, against: Path | None, suites: tuple[str, ...], told: list[str],
    port: int, *, images: bool, no_open: bool,
) -> None:  # fmt: skip
    from vlmend.audit.labels.pairs import PairRow, pair_folder, pair_queue
    from vlmend.audit.labels.raters import keep_attributes
    from vlmend.audit.labels.session import Session

    file = pair_folder(run, against) / file_name
    queue = pair_queue(run, n, seed, file.stem, against=against, suites=suites, images=images)
    keep_attributes(run, file.stem, told)
    with _held(file):
        _serve(Session(queue, file, PairRow), file, run, "models" if against else "people", port, no_open)


def _held(file: Path) -> AbstractContextManager[None]:
    """A labels file for this process alone."""
    from vlmend.core.files import held

    return held(file.parent, f".{file.name}.lock")


def _serve(session: Session, file: Path, run: Path, about: Kind, port: int, no_open: bool) -> None:
    """The page until Ctrl-C, with how far the labeller is before and after."""
    from vlmend.audit.labels.page import serve

    told = "{} of {} labelled, in {}".format
    out_console.print(told(session.done, len(session.queue), file), highlight=False, soft_wrap=True)
    serve(
        session, run / "images", about=about, port=port, open_browser=not no_open,
        ready=lambda address: out_console.print(f"{address}   stop with Ctrl-C", highlight=False, soft_wrap=True),
    )  # fmt: skip
    out_console.print(told(session.done, len(session.queue), file), highlight=False, soft_wrap=True)


def _tell(run: Path, against: Path | None, by: str, seed: int, *, as_json: bool, pairs: bool) -> None:
    if pairs:
        from vlmend.audit.labels.agreeing import pair_report

        found = pair_report(run, against, by=by, seed=seed)
        print_json("pairs", found) if as_json else _show_pairs(found)
    else:
        from vlmend.audit.labels.report import label_report

        found = label_report(run, seed=seed)
        print_json("labels", found) if as_json else _show_labels(found)


def _show_labels(report: dict[str, Any]) -> None:
    """What people's labels tell about a run."""
    for row in report["labellers"]:
        counts = ", ".join(f"{count} {label}" for label, count in row["counts"].items())
        out_console.print(f"{row['name']}: {row['labels']} labels ({counts})", highlight=False)
    pairs = Table("rater", "rater", "on", "n", "unscored", "agreement", "Cohen's kappa", box=None, pad_edge=False)
    for row in report["pairs"]:
        alike = f"{row['agreement']:.1%}" if row["n"] else ""
        pairs.add_row(
            row["a"], row["b"], row["compares"], str(row["n"]), str(row["unscored"]), alike, doubt(row["kappa"], ".2f")
        )
    print_table(pairs)
    if report["alpha"] is not None:
        found, alpha = report["alpha"], doubt(report["alpha"]["alpha"], ".2f")
        told = f"Krippendorff's alpha of {found['raters']} labellers on {found['n']} replies: {alpha}"
        out_console.print(told, highlight=False)
    rates = Table("rate", "judge, labeller", "labels", "judged", "PPI", "Rogan-Gladen", box=None, pad_edge=False)
    for row in report["corrected"]:
        put_right = [row["note"] if row[key] is None else doubt(row[key], ".0%") for key in ("ppi", "rogan_gladen")]
        rate = f"{row['measure'].removesuffix('_rate')} {row['group']}:{row['condition']}"
        who = f"{row['judge']}, {row['labeller'].removeprefix('human-')}"
        rates.add_row(rate, who, f"{row['labels']} of {row['n']}", f"{row['judged']:.0%}", *put_right)
    print_table(rates)


def _show_pairs(report: dict[str, Any]) -> None:
    """What people say of pairs."""
    told = f"{report['pairs']} pairs, {report['equal']} of equal words, {report['distinct']} distinct ones to ask about"
    out_console.print(told, highlight=False)
    for row in report["labellers"]:
        counts = ", ".join(f"{count} {label}" for label, count in row["counts"].items())
        left = f"left in {doubt(row['left'], '.0%')} of {row['decided']}"
        out_console.print(f"{row['name']}: {row['labels']} labels ({counts}); {left}", highlight=False)
    _show_leans("all raters", report)
    if report["by"] is None:
        return
    for row in report["by"]["groups"]:
        name = f"{report['by']['attribute']}={row['group']}, {row['raters']} raters"
        if row["note"]:
            out_console.print(f"{name}: {row['note']}", highlight=False)
            continue
        _show_leans(name, row)
        parting = row["parting"]
        if parting is not None and parting["value"] is not None:
            out_console.print(
                f"  parts from the other raters by {parting['value']:+.2f} of disagreement, p {parting['p_holm']:.3f} "
                f"(Holm; so few raters give {parting['least']:.3f} at the least)",
                highlight=False,
            )
    if report["by"]["not_told"]:
        out_console.print(f"{report['by']['not_told']} raters did not tell", highlight=False)


def _show_leans(name: str, found: dict[str, Any]) -> None:
    """Agreement and leans of all raters or of a group of them."""
    out_console.print(f"{name}:", highlight=False)
    if found["alpha"] is not None:
        alpha = doubt(found["alpha"]["alpha"], ".2f")
        out_console.print(f"  Krippendorff's alpha on {found['alpha']['n']} pairs: {alpha}", highlight=False)
    for lean in found["leans"]:
        counts = ", ".join(f"{count} {label}" for label, count in lean["counts"].items())
        told = f"first {lean['first']}, second {lean['second']}: {counts}; lean {doubt(lean['lean'], '+.2f')}"
        out_console.print(f"  {told} on {lean['n']} pairs", highlight=False)
