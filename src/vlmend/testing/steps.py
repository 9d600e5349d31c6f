"""The contract of steps: every row is accounted for, with a reason where it is not as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from vlmend import registry
from vlmend.core.contracts import AbstractStep, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.testing.laws import Laws, bound, check_page, check_parameters, held, require, settle
from vlmend.testing.stages import plain_image

__all__ = ["StepTrial", "check_step", "laws_of_step"]

SEED = 5


@dataclass(frozen=True, eq=False)
class StepTrial:
    """A step with its quick parameters, applied once to a few rows.

    Attributes:
        kind: Its class.
        full: Its registered name; empty where it was handed over as a class.
        docs: The folder that holds `steps/NAME.md`, or None.
    """

    kind: type[AbstractStep]
    full: str
    docs: Path | None

    @cached_property
    def step(self) -> AbstractStep:
        return registry.configured(self.kind, "steps", self.kind.quick)

    @cached_property
    def data(self) -> Dataset:
        return self.step.sample_data() or _captioned()

    @cached_property
    def edit(self) -> DataEdit:
        return self.step.apply(self.data, seed=SEED)


def check_step(plugin: str | type[AbstractStep], docs: Path | None = None) -> None:
    """Hold a step to its contract.

    Args:
        plugin: Its registered name, or its class.
        docs: The folder that holds `steps/NAME.md`; without one no page is asked for.

    Raises:
        AssertionError: It breaks laws; all of them are named, with what was seen.
    """
    settle(laws_of_step(plugin, docs))


def laws_of_step(plugin: str | type[AbstractStep], docs: Path | None = None) -> Laws:
    """The laws that hold for this step, by name, as `check_step` runs them."""
    trial = _trial(plugin, docs)
    laws = [
        says_what_it_is, parameters_survive_json, same_seed_same_data, every_row_is_accounted_for,
        reasons_are_told, ids_stay_unique, the_input_stays_as_it_was,
    ]  # fmt: skip
    if trial.kind.idempotent:
        laws.append(twice_is_once)
    return bound(trial.full or trial.kind.name, trial, laws if docs is None else [*laws, the_page_says_it])


@cache
def _trial(plugin: str | type[AbstractStep], docs: Path | None) -> StepTrial:
    return StepTrial(*held("steps", plugin), docs)


# --- the laws


def says_what_it_is(trial: StepTrial) -> None:
    """Name and source are told."""
    kind = trial.kind
    require(not trial.full or trial.full.rpartition("/")[2] == kind.name, f"its name is {kind.name!r}")
    require(bool(kind.name.strip() and kind.source.strip()), "it does not say its name and source")


def parameters_survive_json(trial: StepTrial) -> None:
    """Quick parameters are parameters, JSON keeps them, and an unknown one is refused with those that are known."""
    check_parameters(trial.kind, "steps")


def same_seed_same_data(trial: StepTrial) -> None:
    """Applied again, the rows, what was changed and dropped, and the reasons are the same."""
    require(_told(trial.step.apply(trial.data, seed=SEED)) == _told(trial.edit), "applied again it gives other rows")


def every_row_is_accounted_for(trial: StepTrial) -> None:
    """Each row is kept, changed or dropped, and just one of these; any other that comes in is told as added."""
    edit = trial.edit
    after = {row.id: row for row in edit.data.examples}
    changed = Counter(one.before.id for one in edit.changed)
    dropped = Counter(one.example.id for one in edit.dropped)
    new = {one.after.id for one in edit.changed} | {one.example.id for one in edit.added}
    for row in trial.data.examples:
        kept = int(after.get(row.id) == row)
        fates = {"kept": kept, "changed": changed[row.id], "dropped": dropped[row.id]}
        require(sum(fates.values()) == 1, f"row {row.id} is {', '.join(f'{n} times {k}' for k, n in fates.items())}")
    strangers = set(after) - new - {row.id for row in trial.data.examples}
    require(not strangers, f"rows {', '.join(sorted(strangers))} come from nowhere")
    lost = [one.after.id for one in edit.changed if after.get(one.after.id) != one.after]
    require(not lost, f"rows {', '.join(lost)} were changed, and the data hold others")
    require(edit.kept == len(trial.data.examples) - len(edit.changed) - len(edit.dropped), f"{edit.kept} are kept")
    unsaid = [one.example.id for one in edit.added if after.get(one.example.id) != one.example]
    require(not unsaid, f"rows {', '.join(unsaid)} were added, and the data hold others")


def reasons_are_told(trial: StepTrial) -> None:
    """Each change and each loss has a reason in words."""
    silent = [one.before.id for one in trial.edit.changed if not one.why.strip()]
    silent += [one.example.id for one in (*trial.edit.dropped, *trial.edit.added) if not one.why.strip()]
    require(not silent, f"no reason is told for {', '.join(silent)}")


def ids_stay_unique(trial: StepTrial) -> None:
    """Runs are paired by ids."""
    counts = Counter(row.id for row in trial.edit.data.examples)
    twice = [name for name, count in counts.items() if count > 1]
    require(not twice, f"ids {', '.join(twice)} occur twice")


def the_input_stays_as_it_was(trial: StepTrial) -> None:
    """Licence and whether the data are for testing only are kept; the given data themselves are not written to."""
    before = trial.data.digest
    edit = trial.step.apply(trial.data, seed=SEED)
    require(trial.data.digest == before, "the given data are others than before")
    first, last = trial.data, edit.data
    require((last.licence, last.test_only) == (first.licence, first.test_only), "licence or terms of use are lost")


def twice_is_once(trial: StepTrial) -> None:
    """As `idempotent` claims: on its own result it changes and drops nothing."""
    again = trial.step.apply(trial.edit.data, seed=SEED)
    undone = [one.before.id for one in again.changed] + [one.example.id for one in again.dropped]
    require(not undone, f"applied to its own result it changes or drops {', '.join(undone)}")
    require(again.data.examples == trial.edit.data.examples, "applied to its own result it gives other rows")


def the_page_says_it(trial: StepTrial) -> None:
    """docs/steps/NAME.md has its title, and explains each parameter."""
    assert trial.docs is not None
    check_page(trial.docs / "steps" / f"{trial.kind.name}.md", trial.kind.name, (), trial.step.parameters)


# --- their parts


@cache
def _captioned() -> Dataset:
    """Captioned pictures of two groups, one of them twice."""
    rows = [
        Example(f"row {k}", "", None, group, plain_image(colour), f"a {colour} picture", attributes={"gender": group})
        for k, (colour, group) in enumerate(
            (("red", "man"), ("red", "man"), ("lime", "woman"), ("navy", "man"), ("white", "woman"), ("brown", "man"))
        )
    ]
    return Dataset("captioned pictures", tuple(rows), "Apache-2.0")


def _told(edit: DataEdit) -> tuple[object, ...]:
    changed = [(one.before.id, one.after.id, one.why) for one in edit.changed]
    return edit.data.digest, changed, [(one.example.id, one.why) for one in edit.dropped]
