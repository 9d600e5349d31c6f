"""Numbers with their doubt: what an audit gives and a report reads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from vlmend.core.files import write_json
from vlmend.core.jsontext import unsummed
from vlmend.errors import UsageError

__all__ = [
    "PUT_RIGHT", "Axis", "Better", "Compared", "Curve", "Grouped", "Measure", "Point", "Scale", "Scorecard", "Unit",
    "behind", "find_measure", "samples_digests",
]  # fmt: skip

Axis = Literal["safety", "privacy", "fairness", "robustness", "utility"]
Better = Literal["lower", "higher", "neither"]
Unit = Literal["share", "number"]
"""share: people read it in percent. number: as it is."""
Scale = Literal["linear", "log", "counts"]
Compared = Literal["share", "mean", "none"]
"""How two runs are compared by it, on the samples behind it. share: McNemar on which count. mean: sign flips of the
means of clusters. none: not at all."""

AGAIN = "Run the same `vlmend audit ... --out` again: finished replies are kept."
SAMPLES = ("samples.jsonl", "measured.jsonl")
"""What the measures of a run are computed from."""

PUT_RIGHT = ", put right by "
"""Stands in a measure's `judge` between the judge and the people whose labels its value is put right by."""


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes:
        axis, suite, name, group: What was measured; `group` is a condition or kind.
        value, low, high: The estimate and its 95 % interval; NaN where nothing could be scored.
        n: Samples that were scored.
        unscored: Samples that were asked but could not be scored, shown and never hidden.
        better: The direction that is better.
        hit: The verdicts that count.
        judge: Who gave the verdicts.
        agreement: Share of these samples that the second judge of the run counts alike; NaN where there is none.
        unit: How people read it.
        floor: What chance alone would give on these samples; NaN where that is no question.
        compared: How two runs are compared by it.
        says: What it says in the first sentence about a run, with {value} in it ("answered {value} of the harmful
            requests"); empty for most measures.
        judged: What the judge alone gave, where `value` is put right by people's labels; else NaN.
        ceiling: The largest value that it can take; NaN where that is 1 (of a share) or not known (of a number).
        against: The group of the same measure that it is held against in the same run (with an image against text
            alone); empty where there is none.
    """

    axis: Axis
    suite: str
    name: str
    group: str
    value: float
    low: float
    high: float
    n: int
    unscored: int
    better: Better
    hit: tuple[str, ...] = ()
    judge: str = ""
    agreement: float = math.nan
    unit: Unit = "share"
    floor: float = math.nan
    compared: Compared = "none"
    says: str = ""
    against: str = ""
    judged: float = math.nan
    ceiling: float = math.nan

    @property
    def largest(self) -> float:
        """The largest value that it can take; NaN where that is not known."""
        return 1.0 if self.unit == "share" and math.isnan(self.ceiling) else self.ceiling

    @property
    def of_samples(self) -> float:
        """What the verdicts on its samples give, before people's labels put it right."""
        return self.value if math.isnan(self.judged) else self.judged

    @property
    def judge_of_samples(self) -> str:
        """Who gave the verdicts on its samples, whoever put the value right."""
        return self.judge.partition(PUT_RIGHT)[0]

    def said(self, digits: int = 0) -> str:
        """Value and interval as people read them, a share in percent with so many digits."""
        if not self.n:
            return "unscored"
        value, low, high = (self.written(x, digits) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]" if low and high else f"{value} (no interval)"

    def written(self, value: float, digits: int = 0) -> str:
        """A value of this measure; empty where there is none."""
        if math.isnan(value):
            return ""
        return f"{value:z.{digits}%}" if self.unit == "share" else f"{value:z.{digits + 2}f}"


@dataclass(frozen=True)
class Point:
    """A value with its 95 % interval at one place of a curve, from n samples."""

    x: float
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Curve:
    """A line of a picture, for what is read better by eye than row by row.

    Attributes:
        suite, title: Curves of one suite and title share a picture.
        name: Which of its lines this is; empty where there is one.
        x, y: What the axes show.
        points: At least one, in the order of x.
        note: What a reader must know to read the picture.
        diagonal: Whether the picture shows where both axes are equal.
        unit: Of y.
        scale: How the axes are divided. log: both logarithmic, for values above 0. counts: x alone, with 0 before 1.
    """

    suite: str
    title: str
    name: str
    x: str
    y: str
    points: tuple[Point, ...]
    note: str = ""
    diagonal: bool = False
    unit: Unit = "share"
    scale: Scale = "linear"


@dataclass(frozen=True)
class Scorecard:
    """The measures of one run and where they come from.

    Attributes:
        rows: By the run's first judge.
        others: The same measures by each further judge.
        judges: How far the judges agree, pair by pair and suite by suite.
        curves: What pages draw as lines.
        complete: The audit came to its end: every request has a reply, or is unscored by name.
        made_from: SHA-256 of each file of samples that the measures were computed from, by its name.
    """

    model: str
    mends: tuple[dict[str, Any], ...]
    seed: int
    versions: dict[str, str]
    rows: tuple[Measure, ...]
    provenance: dict[str, Any]
    others: tuple[Measure, ...] = ()
    judges: tuple[dict[str, Any], ...] = ()
    curves: tuple[Curve, ...] = ()
    complete: bool = False
    made_from: dict[str, str] = field(default_factory=dict[str, str])

    def save(self, file: Path) -> None:
        """Write it.

        Raises:
            RunProblem: It cannot be written.
        """
        write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> Scorecard:
        from pydantic import TypeAdapter, ValidationError  # loaded with the first scorecard: it takes a second

        try:
            content = unsummed(json.loads(file.read_bytes()))
            if content is None:
                raise _unreadable(file, "it was changed since it was written")
            tables = {"rows": content["rows"], "others": content.get("others", ())}
            content |= {name: [_filled(row) for row in table] for name, table in tables.items()}
            curves = content.get("curves", ())
            content["curves"] = [{**one, "points": [_filled(point) for point in one["points"]]} for one in curves]
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as problem:
            first = problem.errors()[0]
            raise _unreadable(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from problem
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise _unreadable(file, repr(problem)) from problem

    @classmethod
    def finished(cls, run: Path) -> Scorecard:
        """The scorecard of a run folder, for whoever takes its numbers for the model's.

        Raises:
            UsageError: There is none that can be read, the audit did not come to its end, or the samples in the
                folder are not those that it was computed from.
        """
        if not (run / "scorecard.json").exists():
            raise UsageError(f"{run} holds no scorecard.", "Run `vlmend audit ... --out` there until it ends.")
        card = cls.load(run / "scorecard.json")
        if not card.complete:
            raise UsageError(
                f"The audit in {run} did not come to its end, or was made by an earlier vlmend.",
                AGAIN,
            )
        others = sorted(card.made_from.items() - samples_digests(run).items())
        if others:
            raise UsageError(f"The scorecard in {run} was not made from the {others[0][0]} that is there now.", AGAIN)
        return card

    def __iter__(self) -> Iterator[Measure]:
        return iter(self.rows)


def samples_digests(run: Path) -> dict[str, str]:
    """SHA-256 of the files of samples that a run folder has, by name."""
    files = [run / name for name in SAMPLES if (run / name).is_file()]
    found: dict[str, str] = {}
    for file in files:
        with file.open("rb") as held:
            found[file.name] = hashlib.file_digest(held, "sha256").hexdigest()
    return found


def find_measure(card: Scorecard, suite: str, name: str, group: str) -> Measure | None:
    """The row of that name, or None where the run did not measure it."""
    wanted = (suite, name, group)
    return next((row for row in card if (row.suite, row.name, row.group) == wanted), None)


@runtime_checkable
class Grouped(Protocol):
    """What the samples behind a measure are told by."""

    @property
    def group(self) -> str: ...

    @property
    def condition(self) -> str: ...


def behind(row: Measure, sample: Grouped) -> bool:
    """Whether a sample of its suite is one that a measure was computed from.

    A measure's `group` names a condition, a group, or both as `group:condition`.
    """
    return row.group in (sample.condition, sample.group, f"{sample.group}:{sample.condition}")


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file, in which null stands for NaN."""
    return {key: math.nan if value is None else value for key, value in row.items()}


def _unreadable(file: Path, what: str) -> UsageError:
    return UsageError(
        f"{file} is no scorecard that can be read ({what}).",
        f"Pass a run folder that `vlmend audit ... --out` wrote. {AGAIN}",
    )
