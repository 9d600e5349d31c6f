"""What an audit asks, and which suites that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, get_args

from vlmend import registry
from vlmend.core.contracts import AbstractSuite, ReferenceSuite
from vlmend.core.examples import Dataset
from vlmend.core.measures import Axis
from vlmend.core.targets import CALLED, Kind, Target, kinds_of, within
from vlmend.errors import BadParameter, UnknownName, UsageError

__all__ = ["Plan", "check_names", "default_suites", "lacking", "names_in", "of_kind", "reachable", "suites_of"]

DEFAULT_SUITES: dict[Kind, str] = {"chat": "safety,utility", "dual": "fairness,robustness", "data": "fairness"}
"""What is asked of a model of each kind unless the user names suites."""


@dataclass(frozen=True)
class Plan:
    """What to ask: the same plan on the same target gives the same scorecard.

    Attributes:
        suites: Names of suites, or of axes (`safety` is every suite of that axis).
        data: A data set, or the line of text by which `data.layouts.read_data` reads one; None is the built-in data.
        limit: Requests of each kind, or all.
        max_new_tokens: Longest reply, or each suite's own.
        seed: Of draws and resampling; epoch k draws with seed + k.
        temperature: 0 is greedy.
        epochs: How often each request is asked; more than once needs a temperature.
    """

    suites: tuple[str, ...] = ("safety", "utility")
    data: Dataset | str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    temperature: float = 0.0
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.temperature < 0 or (self.epochs > 1 and self.temperature == 0):
            raise BadParameter(
                f"{self.epochs} epochs at temperature {self.temperature:g} cannot be asked.",
                "Epochs count from 1; asking again without a temperature gives the same replies.",
            )

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values; a data set is told by its name."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return held | {"data": self.data.name if isinstance(self.data, Dataset) else self.data}


def suites_of(
    wanted: Sequence[str], data: Dataset | None = None, kind: Kind = "chat", *, reference: bool = False
) -> list[str]:
    """Full suite names of names and axes, each once, in order; an axis means its suites that fit model and data.

    Without a reference an axis leaves out the suites that need one, without data those that have no rows of
    their own or are asked by name only.

    Raises:
        UnknownName: A name that is neither.
        UsageError: A suite, or an axis all of whose suites, are for subjects of another kind; no suite has a use for
            any row of the data; or there are no data, and no suite of an axis has rows of its own.
    """
    found: list[str] = []
    for name in wanted:
        fitting = of_kind(name, kind)
        if name in get_args(Axis):
            lacks = [lacking(suite, data, kind, reference=reference) for suite in fitting]
            fitting = [suite for suite, lack in zip(fitting, lacks, strict=True) if not lack]
            if not fitting and data is None:
                needed = " or ".join(dict.fromkeys(lacks))
                raise UsageError(
                    f"{name} on {CALLED[kind]} has nothing to measure: each of its suites needs {needed}.",
                    "Pass --data: what a suite reads stands on its page (docs/suites).",
                )
        found += [suite.name for suite in fitting]
    if wanted and data is not None and not found:
        raise UsageError(
            f"No suite of {', '.join(wanted)} has a use for a row of {data.name} ({len(data.examples)} rows).",
            "What a suite reads stands on its page (docs/suites); leave out --data for its built-in rows.",
        )
    return list(dict.fromkeys(found))


def of_kind(name: str, kind: Kind) -> list[AbstractSuite[Any]]:
    """The suite of that name, or the suites of that axis that are for such subjects.

    Raises:
        UnknownName: A name that is neither.
        UsageError: There is none.
    """
    every = registry.names("suites", name) if name in get_args(Axis) else [name]
    fitting = [suite for suite in map(registry.suite, every) if kind in kinds_of(suite.works_on)]
    if not fitting:
        raise UsageError(f"{name} cannot be measured on {CALLED[kind]}.", f"Such a subject has: {_listed(kind)}.")
    return fitting


def lacking(suite: AbstractSuite[Any], data: Dataset | None, kind: Kind, *, reference: bool) -> str:
    """What there must be for a suite of this kind to have something to measure, and is not there; "" where all is."""
    if isinstance(suite, ReferenceSuite) and not reference:
        return "a reference (--reference)"
    if data is None:
        if suite.by_name:
            return "to be asked by name (--suite NAME)"
        return "" if suite.own_rows or kind == "data" else "rows (--data)"
    return "" if suite.fits(data, kind) else f"rows that {data.name} does not hold"


def reachable(
    suites: Sequence[AbstractSuite[Any]], wanted: Sequence[str], target: Target
) -> list[AbstractSuite[Any]]:  # fmt: skip
    """The suites without those of an axis that must look deeper than the target lets them; all where none is left.

    What is asked for by its own name stays, and is refused where it cannot be had.
    """
    named = {registry.suite(name).name for name in wanted if name not in get_args(Axis)}
    kept = [suite for suite in suites if suite.name in named or within(target, suite.needs)]
    return kept or list(suites)


def default_suites(kind: Kind) -> tuple[str, ...]:
    """What is asked of a subject of this kind unless the user names suites.

    Raises:
        UsageError: There is none.
    """
    if kind not in DEFAULT_SUITES:
        raise UsageError(
            f"No suite is asked of {CALLED[kind]} unless it is named.",
            "Name it, and what reads pictures: --suite fairness/neutrality --reference A_DUAL_ENCODER. Or draw with "
            "a step (vlmend list steps) and audit what it drew: data:FILE.",
        )
    return names_in(DEFAULT_SUITES[kind])


def names_in(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names with commas between, or one by one."""
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(part.strip() for part in parts if part.strip())


def check_names(wanted: Sequence[str]) -> None:
    """Refuse names that are neither suite nor axis, before anything is loaded; all of them at once.

    Raises:
        UnknownName: As told, with the nearest name.
    """
    problems: list[UnknownName] = []
    for name in wanted:
        if name in get_args(Axis):
            if not registry.names("suites", name):
                problems.append(UnknownName(f"The axis {name} has no suite yet.", "See: vlmend list suites."))
            continue
        try:
            registry.plugin("suites", name)
        except UnknownName as problem:
            near = get_close_matches(name, get_args(Axis), n=1)
            problems.append(UnknownName(problem.message, f"Did you mean {near[0]}?") if near else problem)
    if problems:
        raise UnknownName(" ".join(one.message for one in problems), " ".join(dict.fromkeys(p.hint for p in problems)))


def _listed(kind: Kind) -> str:
    return (
        ", ".join(name for name in registry.names("suites") if kind in kinds_of(registry.suite(name).works_on))
        or "none yet"
    )
