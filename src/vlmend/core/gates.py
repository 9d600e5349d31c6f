"""Bounds on a scorecard, for continuous integration: `safety.unsafe_rate[original].high <= 0.10`.

A gate on `high` (or `low`) asks that the data show the bound, not only that the estimate lies inside
it: with few requests it fails, as it should.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, cast, get_args

from vlmend.core.measures import Measure, Scorecard
from vlmend.errors import UsageError

__all__ = ["Field", "Gate", "GateResult", "check_gates", "parse_gate"]

Field = Literal["value", "low", "high", "n", "unscored", "agreement"]

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip

FORM = re.compile(
    r"\s*(?P<suite>[\w/]+)\.(?P<name>\w+)\[(?P<group>[^\]]+)\]\.(?P<field>\w+)\s*"
    r"(?P<sign><=|>=|<|>)\s*(?P<bound>[-+.\deE]+)\s*(?P<percent>%?)\s*"
)
NEAREST = 3
"""Measures that are named where a gate fits none."""
HINT = "Write AXIS_OR_SUITE.MEASURE[GROUP].FIELD <= NUMBER, for example safety.unsafe_rate[original].high <= 0.10."


@dataclass(frozen=True)
class Gate:
    """A bound on one field of the measures of that name.

    Attributes:
        text: As it was written.
        suite: An axis (`safety`), a suite (`safety/alignment_gap`) or its short name.
        name, group: Of the measure.
        field: What is compared.
        sign, bound: The comparison that must hold.
    """

    text: str
    suite: str
    name: str
    group: str
    field: Field
    sign: str
    bound: float

    def matches(self, row: Measure) -> bool:
        """Whether a measure is one that this gate is about."""
        suites = (row.axis, row.suite, row.suite.split("/")[-1])
        return self.suite in suites and (row.name, row.group) == (self.name, self.group)


@dataclass(frozen=True)
class GateResult:
    """A gate on one measure; `passed` is False where the number is not known."""

    gate: Gate
    row: Measure
    actual: float
    passed: bool


def parse_gate(text: str) -> Gate:
    """Read a gate; a bound may be written as a share or in percent.

    Raises:
        UsageError: It has another form, or names no field.
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"The gate {text!r} cannot be read.", HINT)
    if found["field"] not in get_args(Field):
        raise UsageError(f"A measure has no field {found['field']!r}.", f"It has: {', '.join(get_args(Field))}.")
    try:
        bound = float(found["bound"]) / (100 if found["percent"] else 1)
    except ValueError as problem:
        raise UsageError(f"The bound of the gate {text!r} is no number.", HINT) from problem
    field = cast(Field, found["field"])
    return Gate(text.strip(), found["suite"], found["name"], found["group"], field, found["sign"], bound)


def check_gates(card: Scorecard, gates: Sequence[Gate]) -> list[GateResult]:
    """Hold every gate to every measure that it is about, by the headline judge.

    Raises:
        UsageError: A gate is about no measure of this scorecard; all such gates are named.
    """
    lost = [gate for gate in gates if not any(gate.matches(row) for row in card)]
    if lost:
        near = list(dict.fromkeys(name for gate in lost for name in _nearest(gate, card)))
        raise UsageError(
            f"No measure of this run fits {'; '.join(gate.text for gate in lost)}.",
            f"Nearest: {', '.join(near) or 'none'}. All of them are in scorecard.json.",
        )
    return [_result(gate, row) for gate in gates for row in card if gate.matches(row)]


def _nearest(gate: Gate, card: Scorecard) -> list[str]:
    """The measures whose names are most like those of a gate, written as it writes them."""
    asked = f"{gate.suite}.{gate.name}[{gate.group}]"
    there = [f"{suite}.{row.name}[{row.group}]" for row in card for suite in (row.axis, row.suite)]
    return get_close_matches(asked, dict.fromkeys(there), n=NEAREST, cutoff=0.4)


def _result(gate: Gate, row: Measure) -> GateResult:
    actual = float(getattr(row, gate.field))
    return GateResult(gate, row, actual, not math.isnan(actual) and COMPARE[gate.sign](actual, gate.bound))
