"""The contract of attacks: a data set and a target in, a data set that the target fails on out.

Sizes are counted in what a file can hold: a budget is whole steps of 8 bits, and whether an attack worked is judged
anew from the bytes that are saved.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Generic, final

import numpy as np
from typing_extensions import TypeVar

from vlmend.core.attack_notes import ATTACK, L2, WORDS, attributes_of_attack, notes_of_attack
from vlmend.core.budget import LEVELS, Budget, levels_of, random_signs
from vlmend.core.examples import REQUEST, Dataset, Example
from vlmend.core.halving import by_halves
from vlmend.core.proposals import Kept, Nowhere, Progress, Proposal, silent, within
from vlmend.core.readable import at_once, spread_readable
from vlmend.core.targets import Access, Kind, Target, check_access
from vlmend.errors import FAILURES, BadData, BatchProblem, SampleError, UsageError, VlmendError

__all__ = [
    "ATTACK", "WORDS", "AbstractAttack", "AnyTarget", "Budget", "Kept", "Nowhere", "Proposal", "Task",
    "attributes_of_attack", "random_signs", "silent",
]  # fmt: skip

AnyTarget = TypeVar("AnyTarget", bound=Target, default=Any)
Task = TypeVar("Task", default=Any)


@dataclass(frozen=True)
class AbstractAttack(ABC, Generic[AnyTarget, Task]):
    """A way to turn a data set into one that a target fails on. The fields of the subclass are its parameters.

    The base class owns the protocol: it keeps pictures within epsilon and between black and white, writes them as what
    a file holds, judges success anew from the saved bytes, holds random signs of the same size against it, draws
    for each row from a seed of its own, and leaves out by name a row that fails alone. Subclasses write `task`,
    `propose` and `failed`, `seen` where they change pictures, `words_allowed` and `control` where they change words.

    Class attributes: `name` (the file's name), `source` (paper), `works_on`, `needs`, `batch` (rows that are attacked
    together,
    unless the target says how many fit), `quick` (parameters for its contract checks), `draws` (pictures are drawn
    anew, so that epsilon says nothing of them; one of 0 still leaves all as it was), `right` (what a row counts as that
    the attack did not turn) and `at_random` (what stands beside the attack, as large and without aim), both for people.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    works_on: ClassVar[tuple[Kind, ...]]
    needs: ClassVar[Access] = "gradients"
    batch: ClassVar[int] = 16
    quick: ClassVar[Mapping[str, Any]] = {}
    draws: ClassVar[bool] = False
    right: ClassVar[str] = "Right"
    at_random: ClassVar[str] = "changed as much at random"

    @abstractmethod
    def task(self, target: AnyTarget, data: Dataset) -> Task:
        """What is attacked: made once a run, and handed to the other methods."""

    @abstractmethod
    def propose(self, task: Task, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        """A changed row for each of these.

        Args:
            task: What `task` made.
            rows: With images as `seen` gives them.
            budget: Not empty, epsilon in whole steps of 8 bits.
            seeds: One a row, so that a row comes out alike in any batch.

        Of a proposed row words and attributes are taken. `run` raises BadData where another field is not as before.
        """

    @abstractmethod
    def failed(self, task: Task, rows: Sequence[Example]) -> list[bool]:
        """For each row whether the target gets it wrong, told from its bytes."""

    def seen(self, task: Task, rows: Sequence[Example]) -> list[Example]:
        """The rows with images at the resolution at which the target reads them: what epsilon is measured against."""
        return list(rows)

    def prepared(self, task: Task, budget: Budget, seed: int) -> Task:
        """The task with what is worked out once for all rows, such as one change for every picture."""
        return task

    def beside(self, task: Task, seed: int) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        """Of attacks that draw: control rows, and what the target makes of them, for people."""
        return (), ()

    def own_data(self) -> Dataset | None:
        """What is attacked where no data is given; None means built-in pictures with their names."""
        return None

    def wants(self, row: Example) -> bool:
        """Whether a row can be attacked."""
        return row.image is not None and bool(row.answers)

    @property
    def words_allowed(self) -> int | None:
        """Words of a row that may differ; None where they are not counted."""
        return None

    def control(self, task: Task, row: Example, budget: Budget, seed: int) -> Example:
        """The row changed as much, without aim: random signs times epsilon on every pixel."""
        return random_signs(row, budget, seed)

    def sample_data(self) -> Dataset | None:
        """A few rows for the contract checks; None means a few pictures with class names."""
        return None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return asdict(self)

    @final
    def run(
        self, target: AnyTarget, data: Dataset, budget: Budget, *,
        seed: int, limit: int | None = None, progress: Progress = silent, kept: Kept = Nowhere(),
        earlier: Dataset | None = None,
    ) -> Dataset:  # fmt: skip
        """The attacked data set: every row with attributes that say what was done and whether it worked.

        An empty budget gives back the data as they are. With a `limit` so many rows are attacked, evenly spread, among
        the classes of all. Rows that an `earlier` attack made are brought within this budget and judged anew, and only
        those that the target still gets right are attacked: the result is the worse of both, under both names.

        Raises:
            UsageError: The attack works on another kind of target, or draws and is to go on from an earlier one.
            NeedsAccess: The target gives no gradients.
            BadData: No row can be attacked.
            BadParameter: Epsilon is above 0 and below one step of 8 bits.
        """
        self._check(target, earlier)
        if budget.empty:
            return data
        budget = budget.in_levels
        rows = [row for row in data.examples if self.wants(row)]
        chosen, bad = spread_readable(target, rows, limit)
        self.check_any(data, chosen)
        before = _by_origin(earlier, chosen)
        made = {row.id: known for row in chosen if (known := kept.get(row.id)) is not None}
        left = [row for row in chosen if row.id not in made]
        progress(self.name, len(made), len(chosen))
        if left:
            good = tuple(row for row in rows if row.id not in bad)
            task = self.prepared(self.task(target, replace(data, examples=good)), budget, seed)
            while left:
                part = left[: at_once(target, left, self.batch) if self.needs == "gradients" else self.batch]
                left = left[len(part) :]
                found, failures = self._each(task, part, budget, seed, before)
                kept.keep(found)
                made |= {row.id: row for row in found}
                bad |= failures
                progress(self.name, len(made) + sum(row.id in bad for row in chosen), len(chosen))
        if not made:
            raise BadData(f"{self.name} failed on every row ({next(iter(bad.values()))}).", "Try it on one row first.")
        attacked = tuple(made[row.id] for row in chosen if row.id in made)
        notes = notes_of_attack(self.name, target.id, budget, seed, attacked, len(data.examples) - len(rows), bad)
        notes += _new_rows(earlier, before, attacked)
        controls, told = self.beside(self.task(target, data), seed) if self.draws else ((), ())
        every = (*attacked, *controls)
        return replace(data, name=f"{data.name}-{self.name}", examples=every, notes=(*data.notes, *notes, *told))

    def _check(self, target: AnyTarget, earlier: Dataset | None) -> None:
        check_access(target, self.name, self.works_on, self.needs)
        if self.draws and earlier is not None:
            told = f"{self.name} draws its pictures anew, so it cannot go on from {earlier.name}."
            raise UsageError(told, "Leave out --after.")

    def check_any(self, data: Dataset, rows: Sequence[Example]) -> None:
        """
        Raises:
            BadData: There are no rows.
        """
        if not rows:
            raise BadData(
                f"{data.name} has no row that {self.name} can attack.",
                'Pass rows with a readable "image" and "answers" (the class name, or the right reply).',
            )

    def _each(
        self, task: Task, rows: Sequence[Example], budget: Budget, seed: int, earlier: Mapping[str, Example]
    ) -> tuple[list[Example], dict[str, str]]:
        """Attacked rows, and why others cannot be: where a batch fails or does not fit, it is tried by halves."""
        failures: dict[str, str] = {}

        def alone(row: Example, problem: Exception) -> None:
            failures[row.id] = problem.message if isinstance(problem, VlmendError) else repr(problem)

        found = by_halves(
            rows, lambda part: self._attacked(task, part, budget, seed, earlier),
            lambda problem: isinstance(problem, (SampleError, BatchProblem, *FAILURES)), alone,
        )  # fmt: skip
        return [row for row in found if row is not None], failures

    def _attacked(
        self, task: Task, rows: Sequence[Example], budget: Budget, seed: int, earlier: Mapping[str, Example]
    ) -> list[Example]:
        """The rows that an earlier attack turned as it left them, and the others attacked."""
        seen = [
            _Seen(row, before, _seed_of(seed, row.id), "+".join([*_names(earlier), self.name]))
            for row, before in zip(rows, self.seen(task, rows), strict=True)
        ]
        again = [(one, made) for one in seen if (made := _proposed_again(one.before, earlier, self.words_allowed))]
        found = {row.id: row for row in self._judged(task, again, budget) if row.attributes["attacked"] == "wrong"}
        left = [one for one in seen if one.row.id not in found]
        if left:
            made = self.propose(task, [one.before for one in left], budget, [one.seed for one in left])
            found |= {row.id: row for row in self._judged(task, list(zip(left, made, strict=True)), budget)}
        return [found[row.id] for row in rows]

    def _judged(self, task: Task, made: Sequence[tuple[_Seen, Proposal]], budget: Budget) -> list[Example]:
        """Proposals as rows, held to the budget, with the target's verdict before, at random and after."""
        if not made:
            return []
        before = [one.before for one, _ in made]
        after = [within(one.before, proposed, budget, self.words_allowed, self.draws) for one, proposed in made]
        noisy = [self.control(task, one.before, budget, one.seed) for one, _ in made]
        wrong = self.failed(task, [*before, *noisy, *after])
        told = [["wrong" if one else "right" for one in wrong[k :: len(made)]] for k in range(len(made))]
        return [
            replace(
                new,
                attributes={
                    **one.row.attributes,
                    **new.attributes,
                    **_noted(one, new, proposed, self.words_allowed, budget, verdicts),
                },
            )
            for (one, proposed), new, verdicts in zip(made, after, told, strict=True)
        ]


@dataclass(frozen=True)
class _Seen:
    """A row, the same as the target reads it, the seed of its draws, and the name under which its attack is noted."""

    row: Example
    before: Example
    seed: int
    attack: str


def _seed_of(seed: int, name: str) -> int:
    return int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:12], 16)


def _by_origin(earlier: Dataset | None, chosen: Sequence[Example]) -> dict[str, Example]:
    """Attacked rows by the row that they were made of.

    Raises:
        BadData: None of those that are chosen is among them.
    """
    rows = () if earlier is None else earlier.examples
    found = {told.get("of", row.id): row for row in rows if (told := attributes_of_attack(row))}
    if earlier is not None and not any(row.id in found for row in chosen):
        raise BadData(
            f"{earlier.name} holds none of these rows as an attack left them.",
            "Pass with --after the folder that vlmend attack wrote of the same --data.",
        )
    return found


def _new_rows(earlier: Dataset | None, before: Mapping[str, Example], attacked: Sequence[Example]) -> list[str]:
    """A note on rows of which an earlier attack left nothing that could be taken over."""
    if earlier is None or not (new := sum(_proposed_again(row, before, None) is None for row in attacked)):
        return []
    return [f"{new} of {len(attacked)} rows are new to this attack: {earlier.name} lacks them at this size."]


def _names(earlier: Mapping[str, Example]) -> list[str]:
    """The attacks that were there before."""
    return sorted({row.attributes[ATTACK] for row in earlier.values()})


def _proposed_again(before: Example, earlier: Mapping[str, Example], words: int | None) -> Proposal | None:
    """What an earlier attack made of a row, where it is of the same size, without words where those may not change."""
    made = earlier.get(before.id)
    if made is None or levels_of(made).shape != levels_of(before).shape:
        return None
    pixels = None if made.image is None else levels_of(made).astype(np.float32) / np.float32(LEVELS)
    return Proposal(before if words is None else replace(before, prompt=made.prompt), pixels)


def _noted(
    seen: _Seen, after: Example, cost: Proposal, words: int | None, budget: Budget, told: Sequence[str]
) -> dict[str, str]:
    clean, noise, attacked = told
    drawn = cost.drawn is not None
    moved = np.zeros(0) if drawn else (levels_of(after) - levels_of(seen.before)).astype(float)
    largest = LEVELS if drawn else int(np.abs(moved).max(initial=0))
    size = {} if cost.pixels is None else {L2: f"{np.linalg.norm(moved.ravel()) / LEVELS:.6g}"}
    reworded = {REQUEST: seen.row.request} if seen.row.request and after.prompt != seen.row.prompt else {}
    counted = {} if words is None else {WORDS: str(words)}
    epsilon = 0.0 if cost.pixels is None else budget.epsilon
    return reworded | counted | size | {
        ATTACK: seen.attack, "epsilon": f"{epsilon:.6g}", "steps": str(budget.steps),
        "largest": f"{largest / LEVELS:.6g}", "clean": clean, "noise": noise, "attacked": attacked,
        "success": str((clean, attacked) == ("right", "wrong")).lower(),
        "forward": str(cost.forward), "backward": str(cost.backward), "dropped": str(cost.dropped), "of": seen.row.id,
    }  # fmt: skip
