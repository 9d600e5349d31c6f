"""The contract of attacks: how far they go, what they count as success, what they write down."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmend import registry
from vlmend.core.attacks import ATTACK, AbstractAttack, Budget, attributes_of_attack
from vlmend.core.examples import Dataset, Example
from vlmend.core.targets import LEVELS, Kind
from vlmend.data.sources import ROWS, read_jsonl
from vlmend.data.writing import write_data
from vlmend.errors import NeedsAccess, UsageError
from vlmend.testing.fakes import narrowed
from vlmend.testing.laws import Laws, bound, check_page, check_parameters, held, refused, require, settle
from vlmend.testing.stages import BROKEN, Stage, plain_image, stage_of

__all__ = ["AttackTrial", "check_attack", "laws_of_attack"]

SEED = 5
BUDGET = Budget(8 / 255, 2)
NOTED = ("epsilon", "steps", "largest", "clean", "noise", "attacked", "success", "forward", "backward", "dropped", "of")


@dataclass(frozen=True, eq=False)
class AttackTrial:
    """An attack with its quick parameters, run once on a tiny model of a kind.

    Attributes:
        cls: Its class.
        full: Its registered name; empty where it was handed over as a class.
        kind: Of the model.
        docs: The folder that holds `attacks/NAME.md`, or None.
    """

    cls: type[AbstractAttack[Any, Any]]
    full: str
    kind: Kind
    docs: Path | None

    @property
    def stage(self) -> Stage:
        return stage_of(self.kind)

    @cached_property
    def attack(self) -> AbstractAttack[Any, Any]:
        return registry.configured(self.cls, "attacks", self.cls.quick)

    @cached_property
    def data(self) -> Dataset:
        return self.attack.sample_data() or _pictures()

    @cached_property
    def made(self) -> Dataset:
        return self.attack.run(self.stage.base, self.data, BUDGET, seed=SEED)

    @cached_property
    def written(self) -> Dataset:
        """The attacked rows as they are read again from the files."""
        with tempfile.TemporaryDirectory() as folder:
            write_data(self.made, Path(folder) / "data")
            read = read_jsonl(Path(folder) / "data" / ROWS)
            return replace(read, examples=tuple(map(_in_memory, read.examples)))

    @cached_property
    def attacked(self) -> list[Example]:
        """Those of them that an attack made; the others stand beside them as controls."""
        return [row for row in self.written.examples if attributes_of_attack(row)]


def check_attack(plugin: str | type[AbstractAttack[Any, Any]], docs: Path | None = None) -> None:
    """Hold an attack to its contract, on each kind of target that it works on.

    Args:
        plugin: Its registered name, or its class.
        docs: The folder that holds `attacks/NAME.md`; without one no page is asked for.

    Raises:
        AssertionError: It breaks laws; all of them are named, with what was seen.
    """
    settle(laws_of_attack(plugin, docs))


def laws_of_attack(plugin: str | type[AbstractAttack[Any, Any]], docs: Path | None = None) -> Laws:
    """The laws of this attack by name, with the kind of target behind it."""
    cls, full = held("attacks", plugin)
    laws = [
        says_what_it_is, parameters_survive_json, an_empty_budget_changes_nothing, it_stays_within_epsilon,
        success_is_that_of_the_saved_files, same_seed_same_bytes, every_row_says_what_was_done, notes_tell_the_passes,
        a_bad_row_is_left_out_by_name, it_is_refused_where_it_does_not_fit,
    ]  # fmt: skip
    if docs is not None:
        laws.append(the_page_says_it)
    name = full or cls.name
    every = [bound(f"{name} on {kind}", _trial(plugin, kind, docs), laws).items() for kind in cls.works_on]
    return {f"{law}-{kind}": put for kind, each in zip(cls.works_on, every, strict=True) for law, put in each}


@cache
def _trial(plugin: str | type[AbstractAttack[Any, Any]], kind: Kind, docs: Path | None) -> AttackTrial:
    return AttackTrial(*held("attacks", plugin), kind, docs)


# --- the laws


def says_what_it_is(trial: AttackTrial) -> None:
    """Name and source are told, and the access that it needs is one of the kind."""
    cls = trial.cls
    require(not trial.full or trial.full.rpartition("/")[2] == cls.name, f"its name is {cls.name!r}")
    require(bool(cls.name.strip() and cls.source.strip()), "it does not say its name and source")
    levels = [level for kind in cls.works_on for level in LEVELS[kind]]
    require(cls.needs in levels, f"it needs {cls.needs!r}, of {', '.join(levels)}")


def parameters_survive_json(trial: AttackTrial) -> None:
    """Quick parameters are parameters, JSON keeps them, and an unknown one is refused with those that are known."""
    check_parameters(trial.cls, "attacks")


def an_empty_budget_changes_nothing(trial: AttackTrial) -> None:
    """With epsilon 0, and with no steps, the data come back as they are."""
    for budget in (Budget(0.0), Budget(BUDGET.epsilon, 0)):
        made = trial.attack.run(trial.stage.base, trial.data, budget, seed=SEED)
        require(made.digest == trial.data.digest, f"{budget} gives other data")


def it_stays_within_epsilon(trial: AttackTrial) -> None:
    """Measured on what the files hold, against the pictures as the target reads them; `largest` says the same."""
    attack, allowed = trial.attack, BUDGET.in_levels.levels
    task = attack.task(trial.stage.base, trial.data)
    before = {row.id: row for row in attack.seen(task, [row for row in trial.data.examples if attack.wants(row)])}
    for row in trial.attacked:
        if attack.draws:
            require(row.attributes["largest"] == "1", f"{row.id} was drawn anew, and says {row.attributes['largest']}")
            continue
        first, last = _levels(before[row.attributes["of"]]), _levels(row)
        require(first.shape == last.shape, f"{row.id}: a picture of {last.shape} stands for one of {first.shape}")
        largest = int(np.abs(last - first).max(initial=0))
        require(largest <= allowed, f"{row.id}: a pixel is {largest} of 255 away, {allowed} are allowed")
        told = round(float(row.attributes["largest"]) * 255)
        require(told == largest, f"{row.id}: a pixel is {largest} of 255 away, and the row says {told}")


def success_is_that_of_the_saved_files(trial: AttackTrial) -> None:
    """Judged once more from the files: `attacked` is what comes out, and success is clean right and attacked wrong."""
    attack, rows = trial.attack, trial.attacked
    wrong = attack.failed(attack.task(trial.stage.base, trial.data), rows)
    for row, failed in zip(rows, wrong, strict=True):
        said = row.attributes
        require((said["attacked"] == "wrong") == failed, f"{row.id} says {said['attacked']}, and its file is not")
        success = str(said["clean"] == "right" and failed).lower()
        require(said["success"] == success, f"{row.id} says success {said['success']}, and it is {success}")


def same_seed_same_bytes(trial: AttackTrial) -> None:
    """Run again, the data are the same to the byte, notes included."""
    again = trial.attack.run(trial.stage.base, trial.data, BUDGET, seed=SEED)
    require((again.digest, again.notes) == (trial.made.digest, trial.made.notes), "a second run gives other data")


def every_row_says_what_was_done(trial: AttackTrial) -> None:
    """Its attributes tell the attack, the budget, the verdicts and the cost."""
    for row in (row for row in trial.made.examples if attributes_of_attack(row)):
        lacking = [name for name in NOTED if not row.attributes.get(name)]
        require(not lacking, f"{row.id} does not say {', '.join(lacking)}")
        require(row.attributes[ATTACK] == trial.cls.name, f"{row.id} was attacked by {row.attributes[ATTACK]}")


def notes_tell_the_passes(trial: AttackTrial) -> None:
    """The sums of the rows' forward and backward passes stand in the notes."""
    notes = " ".join(trial.made.notes)
    for kind in ("forward", "backward"):
        count = sum(int(row.attributes[kind]) for row in trial.attacked)
        require(f"{count} {kind}" in notes, f"{count} {kind} passes were made, and the notes say: {notes}")


def a_bad_row_is_left_out_by_name(trial: AttackTrial) -> None:
    """One picture that cannot be read ends no attack, changes no other row, and is named in the notes."""
    first = trial.data.examples[0]
    if first.image is None:
        return
    data = replace(trial.data, examples=(*trial.data.examples, replace(first, id="broken-row", image=BROKEN)))
    made = trial.attack.run(trial.stage.base, data, BUDGET, seed=SEED)
    require(any("broken-row" in note for note in made.notes), f"the notes say: {' '.join(made.notes)}")
    require(made.digest == trial.made.digest, "beside a bad row the others come out otherwise")


def it_is_refused_where_it_does_not_fit(trial: AttackTrial) -> None:
    """On a target that gives less than it needs, and on one of a kind that it does not work on."""
    base, stranger, surface = trial.stage.base, trial.stage.stranger, LEVELS[trial.kind][0]
    if trial.cls.needs != surface and trial.cls.needs in LEVELS[trial.kind]:
        shown = narrowed(base, surface)
        refused(
            NeedsAccess, lambda: trial.attack.run(shown, trial.data, BUDGET, seed=SEED), f"a target of {surface} only"
        )
    if stranger.kind not in trial.cls.works_on:
        refused(UsageError, lambda: trial.attack.run(stranger, trial.data, BUDGET, seed=SEED), "another kind of target")


def the_page_says_it(trial: AttackTrial) -> None:
    """docs/attacks/NAME.md has its title, and explains each parameter."""
    assert trial.docs is not None
    page = trial.docs / "attacks" / f"{trial.cls.name}.md"
    check_page(page, f"{trial.cls.name}", (), trial.attack.parameters)


# --- their parts


@cache
def _pictures() -> Dataset:
    colours = ("red", "maroon", "lime")
    rows = [
        Example(str(k), "what is it", None, "", plain_image(colour), answers=(f"thing {k % 2}",))
        for k, colour in enumerate(colours)
    ]
    return Dataset("pictures", tuple(rows))


def _levels(row: Example) -> NDArray[np.int16]:
    return np.zeros((0, 0, 3), np.int16) if row.image is None else np.asarray(row.image.decode(), dtype=np.int16)


def _in_memory(row: Example) -> Example:
    """The row with the bytes of its pictures in the place of the files, which go away."""
    held = [replace(image, source=image.content) for image in row.images]
    return replace(row, image=held[0] if held else None, more_images=tuple(held[1:]))
