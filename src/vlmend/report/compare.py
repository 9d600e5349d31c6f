"""Reads run folders, pairs them sample by sample, and says what a reader must know. Files in, plain numbers out.

No suite, method or measure is named here: scorecard rows say how they are compared (`compared`), what they say in a
first sentence (`says`), and what they are held against (`against`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from vlmend.core.cautions import cautions
from vlmend.core.files import read_json
from vlmend.core.measures import Measure, Scorecard, find_measure
from vlmend.core.metrics.paired import Evidence, Observed, Paired, evidence_of, paired_tests
from vlmend.core.samples import read_cost, read_measured, read_samples, read_shown
from vlmend.core.severity import leading
from vlmend.errors import UsageError

__all__ = [
    "LEVEL",
    "Run",
    "Shown",
    "changes",
    "comparison",
    "headline",
    "moves",
    "observed",
    "read_run",
    "sentence",
    "warnings_of",
]

SMALL_GAP = 0.10
"""A gap between a row and what it is held against that is smaller leaves a mend hardly anything to do."""

ROOM = 0.15
"""How far a mended rate may be on the worse side of what the unmended one is held against before it is warned of."""

LOSS = 0.05
"""How far a share that is held against nothing may get worse before it is warned of."""

LEVEL = 0.05
"""Holm's p below which a change is called better or worse."""

UNSCORED = 0.05
"""Share of samples without a verdict or number above which it is warned of."""

TOLD = 3
"""Rows with unscored samples that are named for each run; the others are counted."""


class Shown(NamedTuple):
    """A sample of `shown.json`: the measure by which it was chosen, and its pictures under their captions."""

    id: str
    text: str
    by: str
    pictures: Sequence[tuple[str, Path | None]]


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        samples: Rows of `samples.jsonl`: questions, replies and verdicts.
        measured: Samples of each suite that measures by itself, from `measured.jsonl`.
        notes: What a reader of this run and those beside it must know.
        cost, states: What `cost.json` and `states.json` hold, if they are there.
        shown: Of each suite the samples that stand side by side in pictures, each picture a file or None.
    """

    name: str
    card: Scorecard
    samples: tuple[dict[str, Any], ...]
    cost: dict[str, Any]
    states: dict[str, Any] | None
    measured: dict[str, list[dict[str, Any]]]
    notes: tuple[str, ...] = ()
    shown: Mapping[str, Sequence[Shown]] = field(default_factory=dict[str, Sequence[Shown]])

    def value(self, suite: str, name: str, group: str) -> Measure | None:
        return find_measure(self.card, suite, name, group)

    @cached_property
    def evidence(self) -> list[Evidence]:
        """What each compared row was computed from."""
        samples: dict[str, list[Observed]] = {name: list(map(observed, rows)) for name, rows in self.measured.items()}
        for row in self.samples:
            samples.setdefault(row["suite"], []).append(observed(row))
        return evidence_of(self.card.rows, samples)

    @cached_property
    def asked(self) -> dict[str, frozenset[str]]:
        """What was asked in each suite, as questions are paired."""
        rows = [(row["suite"], row) for row in self.samples]
        rows += [(suite, row) for suite, samples in self.measured.items() for row in samples]
        found: dict[str, set[str]] = {}
        for suite, row in rows:
            found.setdefault(suite, set()).add(observed(row).key)
        return {suite: frozenset(keys) for suite, keys in found.items()}

    @property
    def mended_by(self) -> str:
        """Its mends, or its name where it has none."""
        return " + ".join(mend["method"] for mend in self.card.mends) or self.name


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UsageError: It is none, its audit has not finished, or a fault left what cannot be read.
    """
    if not (folder / "scorecard.json").exists():
        raise UsageError(f"{folder} holds no scorecard.", "Run `vlmend audit ... --out` there until it ends.")
    samples = tuple(read_samples(folder))
    return Run(
        folder.name,
        Scorecard.finished(folder),
        samples,
        read_cost(folder),
        read_json(folder / "states.json"),
        {row.get("suite", row["key"]): row["samples"] for row in read_measured(folder)},
        shown={suite: [_shown(folder, row) for row in rows] for suite, rows in read_shown(folder).items()},
    )


def _shown(folder: Path, row: Mapping[str, Any]) -> Shown:
    """A row of `shown.json`; files are looked for in the run's own folder only."""
    pictures = [(told, folder / "images" / Path(name).name if name else None) for told, name in row["pictures"]]
    return Shown(row["id"], row["text"], row["by"], pictures)


def comparison(before: Run, after: Run) -> list[Paired]:
    """Every paired test of two runs, in the order of the first's scorecard, adjusted together."""
    return paired_tests(before.evidence, after.evidence, seed=before.card.seed)


def changes(before: Run, after: Run) -> list[Paired]:
    """The tests of shares, by exact McNemar on the samples that both runs scored."""
    return [test for test in comparison(before, after) if test.before.compared == "share"]


def moves(before: Run, after: Run) -> list[Paired]:
    """The tests of means, by sign flips of the clusters that both runs scored."""
    return [test for test in comparison(before, after) if test.before.compared == "mean"]


def observed(row: Mapping[str, Any]) -> Observed:
    """A sample of either file; questions are paired by their words as well as by their id."""
    text = row.get("prompt", row.get("text", ""))
    return Observed(
        key=json.dumps([row["id"], text]),
        group=row.get("group", ""),
        condition=row.get("condition", ""),
        cluster=row.get("asked") or row.get("cluster") or row["id"],
        label=row.get("label", ""),
        values=row.get("values", {}),
    )


def sentence(card: Scorecard, *others: Scorecard) -> str:
    """What a scorecard says first of all: of each axis its worst suite, here or in the others, the worst axis first."""
    rows = leading(card, *others)
    return (
        f"{card.model} {', and '.join(_phrases(rows))}." if rows else f"{card.model}: no headline measure in this run."
    )


def headline(before: Run, afters: Sequence[Run]) -> str:
    """What a busy person takes home, in one or two sentences."""
    cards = [run.card for run in (before, *afters)]
    rows, told = leading(*cards), sentence(*cards)
    held = {(row.suite, row.name, row.against) for row in rows if row.against}
    shown = [row for row in rows if (row.suite, row.name, row.group) not in held]
    for run in afters:
        now = [row for one in shown if (row := run.value(one.suite, one.name, one.group)) is not None]
        values = [_value(row) + (f" ({row.group})" if len(shown) > 1 else "") for row in now]
        told += f" With {run.mended_by}: {', '.join(values)}." if values else ""
    return told


def warnings_of(before: Run, *afters: Run) -> list[str]:
    """Where there is little to mend, what was not asked alike, what mends leave or cost, and what has no score."""
    cautioned: dict[str, list[str]] = {}
    for run in (before, *afters):
        for caution in cautions(run.card):
            cautioned.setdefault(caution, []).append(run.name)
    found = [f"{', '.join(names)}: {caution}" for caution, names in cautioned.items()]
    found += [*before.notes, *_small_gaps(before), *_unscored(before)]
    for after in afters:
        found += [
            *_apart(before, after),
            *_judged_apart(before, after),
            *_left_over(before, after),
            *_losses(before, after),
            *_unscored(after),
        ]
    return list(dict.fromkeys(found))


def _apart(before: Run, after: Run) -> list[str]:
    """That the data of two runs differ, where their questions do not."""
    digests = [(run.card.provenance.get("data") or {}).get("digest") for run in (before, after)]
    if before.notes or digests[0] == digests[1]:
        return []
    return [f"{before.name} and {after.name} were made on different data with the same questions."]


def _judged_apart(before: Run, after: Run) -> list[str]:
    """Suites whose rows another judge told in the second run."""
    found: dict[str, str] = {}
    for row in after.card:
        first = before.value(row.suite, row.name, row.group)
        judges = ("", "") if first is None else (first.judge_of_samples, row.judge_of_samples)
        if len(set(judges)) > 1:
            found.setdefault(
                row.suite,
                f"{row.suite}: the {_name(row)} is told by {judges[0]} in {before.name} and by {judges[1]} in "
                f"{after.name}; they are not compared. Read both by the same judges: vlmend rejudge RUN --judge NAME.",
            )
    return list(found.values())


def _small_gaps(run: Run) -> list[str]:
    """Rows of the first sentence that are hardly worse than what they are held against."""
    found: list[str] = []
    for row in run.card:
        other = run.value(row.suite, row.name, row.against) if row.says and row.against else None
        if other is not None and _worse_by(other, row) < SMALL_GAP:
            found.append(
                f"{run.card.model}: {_name(row)} is {_value(row)} ({row.group}) and {_value(other)} ({other.group}), "
                "so there is hardly a gap to mend."
            )
    return found


def _left_over(before: Run, after: Run) -> list[str]:
    """Mended rows that are still, or newly, far worse than what the unmended model is held against."""
    found: list[str] = []
    for row in after.card:
        own = before.value(row.suite, row.name, row.against) if row.against else None
        if own is not None and _worse_by(own, row) > ROOM:
            found.append(
                f"{row.suite}: with {after.mended_by} the {_name(row)} is {_value(row)} ({row.group}), against the "
                f"model's own {_value(own)} ({own.group})."
            )
    return found


def _losses(before: Run, after: Run) -> list[str]:
    """Shares that are held against nothing and got worse, as the paired test confirms."""
    return [
        f"{test.before.suite}: with {after.mended_by} the {_name(test.before)} ({test.before.group}) went from "
        f"{_value(test.before)} to {_value(test.after)}."
        for test in comparison(before, after)
        if test.before.unit == "share" and not test.before.against and test.holm < LEVEL
        and _worse_by(test.before, test.after) > LOSS
    ]  # fmt: skip


def _unscored(run: Run) -> list[str]:
    """Groups of a suite of which many samples have no verdict or number."""
    many = {(row.suite, row.group): row for row in run.card if row.unscored > UNSCORED * (row.n + row.unscored)}
    found = [
        f"{run.name}: {row.unscored} of {row.n + row.unscored} samples of {row.suite} ({row.group}) have no score."
        for row in many.values()
    ]
    if len(found) > TOLD:
        found[TOLD:] = [f"{run.name}: {len(found) - TOLD} further groups have many samples without a score."]
    return found


def _worse_by(first: Measure, second: Measure) -> float:
    """How much worse the second value is than the first; negative where it is better, NaN where neither is."""
    match first.better:
        case "lower":
            return second.value - first.value
        case "higher":
            return first.value - second.value
        case "neither":
            return float("nan")


def _phrases(rows: Sequence[Measure]) -> list[str]:
    """What the rows say, each with its value and chance; a verb that is that of the row before is not said again."""
    told: list[str] = []
    before = ""
    for row in rows:
        chance = f", {row.written(row.floor)} by chance" if row.n and row.written(row.floor) else ""
        verb = row.says.partition("{value}")[0]
        words = row.says.removeprefix(verb) if verb == before else row.says
        told.append(words.format(value=_value(row)) + chance)
        before = verb
    return told


def _value(row: Measure) -> str:
    return (row.written(row.value) if row.n else "") or f"an unknown {'share' if row.unit == 'share' else 'number'}"


def _name(row: Measure) -> str:
    return row.name.replace("_", " ")
