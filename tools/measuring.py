"""What the tools that measure mends share: numbers with their doubt, pictures under attack, and the tables of pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmend.attacks.running import own_pictures
from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Example
from vlmend.core.mend import MendCard
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.core.targets import DualGradients
from vlmend.registry import make_attack, make_method

__all__ = [
    "PAGES", "ROOT", "STUDIES", "Number", "changed", "keep_run", "named", "number", "page_of", "pgd", "read_runs",
    "rounded", "settings", "share", "survived", "table", "write_pages",
]  # fmt: skip

ROOT = Path(__file__).parents[1]
PAGES, STUDIES = ROOT / "docs" / "methods", ROOT / "docs" / "studies"

Number = tuple[float, float, float, int]
"""Value, low, high and n."""
Run = Mapping[str, Any]


def number(interval: Interval, n: int) -> Number:
    """An interval with its n."""
    return interval.value, interval.low, interval.high, n


def rounded(values: Mapping[str, Number]) -> dict[str, list[float]]:
    """Numbers as a file of runs holds them."""
    return {name: [*(round(one, 5) for one in value[:3]), value[3]] for name, value in values.items()}


def read_runs(file: Path) -> list[dict[str, Any]]:
    """The runs of a file; none where there is no file yet."""
    return json.loads(file.read_text()) if file.exists() else []


def keep_run(file: Path, run: Run, same: Sequence[str], order: Callable[[Run], Any]) -> None:
    """A run in place of an earlier one that is alike in the fields `same`; a line each, so that changes can be read."""
    runs = [one for one in read_runs(file) if any(one.get(name) != run.get(name) for name in same)]
    runs = sorted([*runs, dict(run)], key=order)
    file.write_text("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in runs) + "\n]\n")


def share(right: Sequence[bool]) -> Number:
    """With Wilson's interval."""
    return number(wilson(sum(right), len(right)), len(right))


def pgd(view: DualGradients, epsilon: int, *, steps: int, pictures: int) -> Sequence[Example]:
    """The built-in pictures after PGD against this view; epsilon in 255ths."""
    budget = Budget(epsilon / 255, steps)
    return make_attack("pgd", {}).run(view, own_pictures(), budget, seed=0, limit=pictures).examples


def survived(rows: Sequence[Example]) -> list[bool]:
    """Whether each attacked picture is still named right."""
    return [attributes_of_attack(row)["attacked"] == "right" for row in rows]


def changed(card: MendCard | AbstractMethod[Any]) -> dict[str, Any]:
    """The parameters that are not the method's usual ones."""
    usual = make_method(card.method if isinstance(card, MendCard) else card.name, {}).parameters
    return {name: value for name, value in card.parameters.items() if usual.get(name) != value}


def table(runs: Sequence[Run], columns: Mapping[str, str], *methods: str) -> str:
    """The base and every run of the methods, a line each, as Markdown; only columns in which a run has a number.

    Args:
        runs: Each with `method` (`none` is the base), `seed`, `set` and `values`; `on` where it is no run of the first
            model. The base of another model is shown where a method has a run on it.
        columns: Headings, and the values below them.
        methods: The page is that of the last; those before it are named.
    """
    there = {run.get("on", "") for run in runs if run["method"] in methods}
    rows = [
        run
        for on in dict.fromkeys(run.get("on", "") for run in runs)
        for name in ("none", *methods)
        for run in runs
        if run["method"] == name and run.get("on", "") == on and on in there
    ]
    told = {head: name for head, name in columns.items() if any(_has(run, name) for run in rows)}
    lines = [["", *told], ["---"] * (1 + len(told))]
    for run in rows:
        first = [named(run)] if run["method"] in ("none", methods[-1]) else [run["method"], named(run)]
        lines.append([", ".join(first), *(_told(run["values"].get(name)) for name in told.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named(run: Run) -> str:
    """A run on the page of its method."""
    if run["method"] == "none":
        return run.get("on") or "base"
    parts = (run.get("on", ""), settings(run), f"seed {run['seed']}")
    return ", ".join(part for part in parts if part)


def settings(run: Run) -> str:
    """What is not usual about a run: parameters, and what it was fitted on."""
    told = [
        f"{name} {value:{'.3g' if value < 1 else 'g'}}" if isinstance(value, float) else f"{name} {value}"
        for name, value in run["set"].items()
    ]
    return ", ".join([*told, *([run["fitted"]] if run.get("fitted") else [])])


def page_of(text: str, mark: str, runs: Sequence[Run], columns: Mapping[str, str]) -> str:
    """A page with the tables behind `<!-- MARK: NAME NAME -->` written anew."""
    return re.sub(
        rf"(<!-- {mark}: ([\w ]+) -->\n).*?(?=<!-- end -->)",
        lambda found: f"{found[1]}{table(runs, columns, *found[2].split())}\n",
        text,
        flags=re.DOTALL,
    )


def write_pages(mark: str, runs: Sequence[Run], columns: Mapping[str, str]) -> None:
    """Write the tables of every method's page anew."""
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(page_of(page.read_text(), mark, runs, columns))


def _has(run: Run, name: str) -> bool:
    return run["method"] != "none" and name in run["values"]


def _told(value: Sequence[float] | None) -> str:
    return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]" if value else ""
