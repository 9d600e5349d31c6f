"""What an audit asks, and which suites that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmend import registry
from vlmend.core.contracts import TargetKind
from vlmend.core.examples import Dataset
from vlmend.errors import BadParameter, UsageError

__all__ = ["DEFAULT_SUITES", "Plan", "suites_of"]

DEFAULT_SUITES: dict[TargetKind, str] = {"generative": "safety,utility", "dual": "fairness,robustness"}
"""What is asked of a model of each kind unless the user names suites."""

CALLED: dict[TargetKind, str] = {"generative": "a model that answers", "dual": "a dual encoder"}


@dataclass(frozen=True)
class Plan:
    """What to ask: the same plan on the same target gives the same scorecard.

    Attributes:
        suites: Names of suites, or of axes (`safety` is every suite of that axis).
        data: Labelled requests as `data.layouts.read_data` names them, or the built-in data.
        limit: Requests of each kind, or all.
        max_new_tokens: Longest reply, or each suite's own.
        seed: Of draws and resampling; epoch k draws with seed + k.
        temperature: 0 is greedy.
        epochs: How often each request is asked; more than once needs a temperature.
    """

    suites: tuple[str, ...] = ("safety", "utility")
    data: str | None = None
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


def suites_of(wanted: Sequence[str], data: Dataset | None = None, kind: TargetKind = "generative") -> list[str]:
    """Full suite names of names and axes, each once, in order; an axis means its suites that fit model and data.

    Raises:
        UnknownName: A name that is neither.
        UsageError: A suite, or an axis all of whose suites, are for models of the other kind.
    """
    known = registry.suite_names()
    found: list[str] = []
    for name in wanted:
        of_axis = [registry.any_suite(suite) for suite in known if suite.split("/")[0] == name]
        fitting = [suite for suite in of_axis or [registry.any_suite(name)] if suite.works_on == kind]
        if not fitting:
            raise UsageError(f"{name} cannot be measured on {CALLED[kind]}.", f"Such a model has: {_listed(kind)}.")
        found += [suite.name for suite in fitting if not of_axis or data is None or suite.applies(data)]
    return list(dict.fromkeys(found))


def _listed(kind: TargetKind) -> str:
    return ", ".join(name for name in registry.suite_names() if registry.any_suite(name).works_on == kind)
