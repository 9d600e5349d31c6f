"""The contract of suites: what they measure, how many, and that nothing unscored ever counts.

A suite that measures by itself is put to a tiny model or a few rows; one that asks is answered by a script.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from vlmend.core.contracts import AbstractSuite, ReferenceSuite, Sample, SampleSuite
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Measure, behind
from vlmend.core.targets import LEVELS, Kind, kinds_of
from vlmend.errors import BadData
from vlmend.testing.fakes import ScriptedTarget
from vlmend.testing.laws import Laws, bound, check_page, held, require, settle
from vlmend.testing.stages import plain_image, stage_of

__all__ = ["SuiteTrial", "check_suite", "laws_of_suite"]

SEED = 5
LIMIT = 3
UNSCORED = "unscored"


@runtime_checkable
class Asking(Protocol):
    """What a suite that asks has beside measures (`vlmend.audit.suite.Suite`)."""

    def questions(self, data: Dataset | None, limit: int | None) -> Sequence[Any]:
        """What to ask."""
        ...

    def answer(self, question: Any, reply: Any) -> Any:
        """What came of it."""
        ...


class SuiteTrial(ABC):
    """A suite, and samples of it that were taken once."""

    def __init__(self, suite: AbstractSuite[Any], full: str, docs: Path | None, kind: Kind) -> None:
        short: Any = replace(suite, **suite.quick) if suite.quick else suite  # type: ignore[type-var]
        self.suite, self.full, self.docs, self.kind = short, full, docs, kind

    @abstractmethod
    def taken(self, limit: int | None) -> list[Any]:
        """Samples, taken anew."""

    @abstractmethod
    def of(self, data: Dataset, limit: int | None) -> list[Any]:
        """Samples of these data."""

    @abstractmethod
    def blank(self, sample: Any) -> Any:
        """The same sample, unscored."""

    @abstractmethod
    def scored(self, sample: Any) -> bool:
        """Whether it was scored."""

    @cached_property
    def samples(self) -> list[Any]:
        return self.taken(LIMIT)

    @cached_property
    def rows(self) -> list[Measure]:
        return self.suite.measures(self.samples, SEED)


class _Measuring(SuiteTrial):
    """A suite that measures its subject itself."""

    def taken(self, limit: int | None) -> list[Any]:
        return self.of(self.suite.sample_data() or _pictures(), limit)

    def of(self, data: Dataset, limit: int | None) -> list[Any]:
        suite: Any = self.suite
        if isinstance(suite, ReferenceSuite):
            suite = suite.beside(stage_of(suite.reference_kind or self.kind).fresh(1))
        if self.kind == "data":
            return suite.samples(data, None, limit, seed=SEED)
        return suite.samples(stage_of(self.kind).base, data, limit, seed=SEED)

    def blank(self, sample: Any) -> Any:
        return replace(sample, values={}, label="", reason="blanked")

    def scored(self, sample: Any) -> bool:
        return bool(sample.values or sample.label)


class _Asking(SuiteTrial):
    """A suite that asks; the script answers with one of a few replies, by the words of the question."""

    def taken(self, limit: int | None) -> list[Any]:
        return self.of(self.suite.sample_data(), limit)

    def of(self, data: Dataset | None, limit: int | None) -> list[Any]:
        suite: Any = self.suite
        questions = suite.questions(data, limit)
        target = ScriptedTarget(_scripted)
        asked = [question.conversation(target.image_side) for question in questions]
        replies = target.generate(asked, Sampling(suite.max_new_tokens))
        return [suite.answer(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def blank(self, sample: Any) -> Any:
        return replace(sample, label=UNSCORED, reason="blanked")

    def scored(self, sample: Any) -> bool:
        return sample.label != UNSCORED


def check_suite(plugin: str | AbstractSuite[Any], docs: Path | None = None) -> None:
    """Hold a suite to its contract.

    Args:
        plugin: Its registered name, or the suite.
        docs: The folder that holds `suites/NAME.md`; without one no page is asked for.

    Raises:
        AssertionError: It breaks laws; all of them are named, with what was seen.
    """
    settle(laws_of_suite(plugin, docs))


def laws_of_suite(plugin: str | AbstractSuite[Any], docs: Path | None = None) -> Laws:
    """The laws that hold for this suite, by name, as `check_suite` runs them; with the kind where it has several."""
    suite, full = held("suites", plugin)
    trials = _registered(plugin, docs) if isinstance(plugin, str) else _trials(suite, full, docs)
    laws = [
        says_what_it_is, taken_twice_is_the_same, sample_ids_are_unique, the_limit_is_kept, rows_are_its_own_and_unique,
        values_lie_within_their_intervals, rows_say_how_they_are_compared, every_sample_is_counted,
        unscored_samples_never_count, nothing_scored_is_no_number, same_seed_same_rows, data_without_rows_are_refused,
        rows_of_its_own_are_as_told,
    ]  # fmt: skip
    laws += [] if docs is None else [the_page_says_it]
    name = full or suite.name
    if len(trials) == 1:
        return bound(name, trials[0], laws)
    every = {trial.kind: bound(f"{name} on {trial.kind}", trial, laws) for trial in trials}
    return {f"{law}-{kind}": put for kind, each in every.items() for law, put in each.items()}


@cache
def _registered(name: str, docs: Path | None) -> list[SuiteTrial]:
    """Made once, so that samples taken for one law serve the next."""
    return _trials(*held("suites", name), docs)


def _trials(suite: AbstractSuite[Any], full: str, docs: Path | None) -> list[SuiteTrial]:
    kind = _Measuring if isinstance(suite, SampleSuite) else _Asking
    return [kind(suite, full, docs, one) for one in kinds_of(suite.works_on)]


# --- the laws


def says_what_it_is(trial: SuiteTrial) -> None:
    """The name is axis/name, and what it is about, the kind and the access exist."""
    suite = trial.suite
    axis, _, name = suite.name.rpartition("/")
    require(not trial.full or trial.full == suite.name, f"its name is {suite.name!r}")
    require(bool(name) and axis == suite.axis and axis in get_args(Axis), f"{suite.name!r} of axis {suite.axis!r}")
    require(bool(suite.about.strip()), "it does not say what it is about")
    levels = [level for kind in kinds_of(suite.works_on) for level in LEVELS.get(kind, ())]
    require(suite.needs in levels, f"it works on {suite.works_on!r} and needs {suite.needs!r}, of {', '.join(levels)}")
    require(isinstance(suite, SampleSuite | Asking), "it is neither a SampleSuite nor one that asks")


def taken_twice_is_the_same(trial: SuiteTrial) -> None:
    """The samples of one subject and seed."""
    first, again = trial.samples, trial.taken(LIMIT)
    require([one.id for one in first] == [one.id for one in again], "taken again there are other samples")
    changed = [one.id for one, two in zip(first, again, strict=True) if one != two]
    require(not changed, f"taken again, {', '.join(changed)} are others")


def sample_ids_are_unique(trial: SuiteTrial) -> None:
    """Runs are paired by them."""
    twice = [name for name, count in Counter(one.id for one in trial.samples).items() if count > 1]
    require(bool(trial.samples) and not twice, f"of {len(trial.samples)} samples {', '.join(twice)} occur twice")


def the_limit_is_kept(trial: SuiteTrial) -> None:
    """A smaller limit takes some of what a larger one takes: no more of any kind, and fewer in all where it can."""
    fewer, more = trial.taken(1), trial.samples
    counts, larger = (Counter((one.group, one.condition) for one in each) for each in (fewer, more))
    beyond = [f"{kind} {count}" for kind, count in counts.items() if count > larger[kind] > 0]
    require(not beyond, f"with limit 1 there are more of {', '.join(beyond)} than with {LIMIT}")
    require(len(fewer) <= len(more), f"{len(fewer)} samples with limit 1, {len(more)} with {LIMIT}")
    least = max(larger.values())
    require(least <= 1 or len(fewer) < len(more), f"{len(more)} samples with any limit")
    others = {one.id for one in fewer} - {one.id for one in more}
    require(not others, f"{', '.join(sorted(others))} of limit 1 are not among those of {LIMIT}: take the first")


def rows_are_its_own_and_unique(trial: SuiteTrial) -> None:
    """Axis and suite are its own, and a name and a group make one row."""
    require(bool(trial.rows), "it gives no rows")
    strange = [row.name for row in trial.rows if (row.axis, row.suite) != (trial.suite.axis, trial.suite.name)]
    require(not strange, f"{', '.join(strange)} are rows of another suite")
    counts = Counter((row.name, row.group) for row in trial.rows)
    twice = [f"{name} [{group}]" for (name, group), count in counts.items() if count > 1]
    require(not twice, f"there are several rows {', '.join(twice)}")


def values_lie_within_their_intervals(trial: SuiteTrial) -> None:
    """Shares lie between 0 and 1."""
    for row in trial.rows:
        if row.n and not math.isnan(row.low + row.high):
            told = f"{_called(row)} is {row.value:g} in [{row.low:g}, {row.high:g}]"
            require(row.low - 1e-9 <= row.value <= row.high + 1e-9, told)
            require(row.unit != "share" or (row.low >= -1 and row.high <= 1), told)
        require(bool(row.n) or math.isnan(row.value), f"{_called(row)} is {row.value:g} of no samples")


def rows_say_how_they_are_compared(trial: SuiteTrial) -> None:
    """What is compared as shares says which labels count, and what is compared at all has samples behind it."""
    for row in trial.rows:
        require(row.compared != "share" or bool(row.hit), f"{_called(row)} is compared by no label")
        known = [one for one in trial.samples if behind(row, one)]
        require(row.compared == "none" or bool(known), f"{_called(row)} is compared, and no sample is behind it")
        require(not row.says or "{value}" in row.says, f"{_called(row)} says {row.says!r}, without {{value}}")


def every_sample_is_counted(trial: SuiteTrial) -> None:
    """Scored or unscored: n and unscored are the samples behind a row, and never more than there are."""
    for row in trial.rows:
        count = len([one for one in trial.samples if behind(row, one) and _has(one, row.name)])
        told = f"{_called(row)} counts {row.n} and {row.unscored} unscored of"
        require(row.n + row.unscored <= len(trial.samples), f"{told} {len(trial.samples)} samples")
        if row.compared != "none":
            require(row.n + row.unscored == count, f"{told} {count} samples")


def unscored_samples_never_count(trial: SuiteTrial) -> None:
    """With a sample that could not be scored, every row is what it is without that sample, and some row says so."""
    first, *others = trial.samples
    with_it = trial.suite.measures([trial.blank(first), *others], SEED)
    without = {_key(row): row for row in trial.suite.measures(others, SEED)}
    for row in with_it:
        other = without.get(_key(row))
        if other is None:
            require(row.n == 0, f"{_called(row)} is {row.value:g} with an unscored sample only")
        else:
            same = row.n == other.n and (row.value == other.value or math.isnan(row.value + other.value))
            require(same, f"{_called(row)} is {row.value:g} (n {row.n}), without it {other.value:g} (n {other.n})")
    before = sum(row.unscored for row in without.values())
    after = sum(row.unscored for row in with_it)
    require(not trial.scored(first) or after > before, "no row counts the sample that could not be scored")


def nothing_scored_is_no_number(trial: SuiteTrial) -> None:
    """Where no sample was scored, every row says n = 0 and has no value."""
    for row in trial.suite.measures([trial.blank(one) for one in trial.samples], SEED):
        require(row.n == 0 and math.isnan(row.value), f"{_called(row)} is {row.value:g} of {row.n} samples")


def same_seed_same_rows(trial: SuiteTrial) -> None:
    """The intervals too, and the curves."""
    again = trial.suite.measures(trial.samples, SEED)
    require(repr(again) == repr(trial.rows), "measured again the rows are others")
    if isinstance(trial.suite, SampleSuite):
        first, second = (repr(trial.suite.curves(trial.samples, SEED)) for _ in range(2))
        require(first == second, "drawn again the curves are others")


def data_without_rows_are_refused(trial: SuiteTrial) -> None:
    """With the way out; a suite that has questions or pictures of its own may take those."""
    empty = Dataset("empty", ())
    trial.suite.applies(empty)
    try:
        taken = trial.of(empty, LIMIT)
    except BadData as problem:
        require(bool(problem.hint.strip()), f"it is refused without a way out: {problem.message}")
    else:
        require(bool(taken), "it takes no samples of empty data, and does not say why")


def rows_of_its_own_are_as_told(trial: SuiteTrial) -> None:
    """Without data, a suite that claims to have no rows of its own says what it needs."""
    suite: Any = trial.suite
    if suite.own_rows or trial.kind == "data" or not isinstance(suite, SampleSuite):
        return
    if isinstance(suite, ReferenceSuite):
        suite = suite.beside(stage_of(suite.reference_kind or trial.kind).fresh(1))
    try:
        suite.samples(stage_of(trial.kind).base, None, 1, seed=SEED)
    except BadData as problem:
        require(bool(problem.hint.strip()), f"it is refused without a way out: {problem.message}")
    else:
        require(False, "it has rows of its own and does not say so: own_rows = True")


def the_page_says_it(trial: SuiteTrial) -> None:
    """docs/suites/NAME.md has the suite's name for a title."""
    assert trial.docs is not None
    name = trial.suite.name
    check_page(trial.docs / "suites" / f"{name.rpartition('/')[2]}.md", name)


# --- their parts


def _key(row: Measure) -> tuple[str, str]:
    return row.name, row.group


def _called(row: Measure) -> str:
    return f"{row.name} [{row.group}]"


def _has(sample: Any, name: str) -> bool:
    """Whether a sample counts for a value of that name: it has it, or was not scored at all."""
    return not isinstance(sample, Sample) or bool(sample.label) or not sample.values or name in sample.values


def _scripted(conversation: Conversation, mended: bool) -> str:
    del mended
    replies = ("I'm sorry, but I can't help with that.", "Yes. Here is how it is done.", "A cat.", "No")
    return replies[hashlib.sha256(conversation.prompt.encode()).digest()[0] % len(replies)]


@cache
def _pictures() -> Dataset:
    """Captioned pictures of two groups with names, attributes, one without a name, and what an attack made of some."""
    seen = (("red", "man"), ("maroon", "man"), ("lime", "woman"), ("navy", "man"), ("white", "woman"), ("brown", "man"))
    rows = [
        Example(
            f"row {k}", "", None, group, plain_image(colour), f"a {group} in {colour}", (colour,),
            attributes={"gender": group, "age": ("young", "old")[k % 2]},
        )
        for k, (colour, group) in enumerate(seen)
    ]  # fmt: skip
    strange = [replace(row, id=f"{row.id} unnamed", answers=()) for row in rows[:3]]
    noted = {"attack": "pgd", "epsilon": f"{4 / 255:.6g}"}
    attacked = [
        replace(row, id=f"{row.id} attacked", attributes={**row.attributes, **noted, "of": row.id}) for row in rows
    ]
    return Dataset("pictures", (*rows, *strange, *attacked), "Apache-2.0")
