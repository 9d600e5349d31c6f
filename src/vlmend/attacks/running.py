"""Runs an attack into a folder: finished rows are kept one by one, the data set is written at the end.

OUT/                  the attacked data, as `data.writing.write_data` writes them
OUT/attack.jsonl      every finished row with its picture; until the end it is OUT.unfinished.jsonl, beside the folder
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmend.core.attack_notes import notes_of_rows, stood_still
from vlmend.core.attacks import WORDS, AbstractAttack, Budget, attributes_of_attack, silent
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.files import append
from vlmend.core.jsontext import summed, unsummed
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.core.readable import spread_readable
from vlmend.core.targets import Kind, Target, check_access, key_of
from vlmend.data.jsonrow import JsonRow, example_of, row_of
from vlmend.data.writing import write_data
from vlmend.errors import UsageError
from vlmend.pictures.galleries import object_pictures, picture_questions

__all__ = ["KEPT", "Attacked", "attackable", "own_pictures", "run_attack"]

KEPT = "attack.jsonl"


@dataclass(frozen=True)
class Attacked:
    """What an attack came to.

    Attributes:
        data: The attacked rows.
        epsilon: What was allowed, in whole steps of 8 bits; 0 where pictures stay.
        n: Rows that were attacked; one on which no step could be made was not.
        clean, noise, attacked: Share of them that the target gets right, with Wilson's interval: as they were, changed
            as much at random, and under the attack.
        words: How many words might change.
        drawn: Whether pictures were drawn anew.
    """

    data: Dataset
    epsilon: float
    n: int
    clean: Interval
    noise: Interval
    attacked: Interval
    words: int = 0
    drawn: bool = False


def run_attack(
    attack: AbstractAttack[Any, Any], target: Target, data: Dataset, budget: Budget, *,
    seed: int = 0, out: Path | None = None, progress: Callable[[str, int, int], None] = silent,
    earlier: Dataset | None = None,
) -> Attacked:  # fmt: skip
    """Attack a target with every row of a data set, and write what came of it; a stopped run goes on where it was.

    Args:
        attack: With its parameters.
        target: Its mends applied.
        data: Rows that the attack can work on.
        budget: What it may do.
        seed: Of random starts.
        out: Folder of the attacked data; None writes nothing.
        progress: Told after each batch.
        earlier: What another attack made of these rows: those that it turned stay as it left them.

    Raises:
        UsageError: The attack works on another kind of target, or the folder holds something else.
        NeedsAccess: The target gives no gradients.
        BadData: No row can be attacked.
        RunProblem: The folder cannot be written.
    """
    if budget.empty:
        found = _unchanged(attack, target, data)
        if out is not None:
            write_data(data, out)
        return found
    if out is None:
        made = attack.run(target, data, budget, seed=seed, progress=progress, earlier=earlier)
        return _summed(attack, made, budget)
    kept = _Journal(out, _key(attack, target, data, budget, seed, earlier))
    made = attack.run(target, data, budget, seed=seed, progress=progress, kept=kept, earlier=earlier)
    write_data(made, out)
    kept.finish()
    return _summed(attack, made, budget)


def own_pictures(kind: Kind = "dual") -> Dataset:
    """What is attacked where no data is given: a held-out picture of every object that has a name.

    A model that answers is asked what it shows.
    """
    if kind == "chat":
        return picture_questions("held_out")
    data = object_pictures("held_out")
    return replace(data, examples=tuple(row for row in data.examples if row.answers))


def attackable(attack: AbstractAttack[Any, Any], kind: Kind, given: Dataset | None, limit: int | None) -> Dataset:
    """The first rows of the user's data that can be attacked, or some of the built-in pictures, evenly spread."""
    if given is None:
        own = attack.own_data() or own_pictures(kind)
        return replace(own, examples=spread(own.examples, limit))
    if limit is None:
        return given
    return replace(given, examples=tuple(row for row in given.examples if attack.wants(row))[:limit])


class _Journal:
    """Finished rows of one attack, in the order in which they came; a last line that was cut off is made again."""

    def __init__(self, out: Path, key: str) -> None:
        self._done, self._file = out / KEPT, out.absolute().with_name(f"{out.absolute().name}.unfinished.jsonl")
        self._key = key
        self._rows: dict[str, Example] = {}
        file = self._done if self._done.is_file() else self._file
        if not _begun(file):
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise UsageError(f"{out} holds something else.", "Choose another --out, or remove that folder first.")
            return
        first, *lines = file.read_bytes().decode(errors="replace").split("\n")
        if first != json.dumps({"key": key}):
            raise UsageError(
                f"{file} is of another attack: model, mends, data, parameters, budget or seed differ.",
                "Choose another --out, or remove it first.",
            )
        for line in lines:
            example = _read(line)
            if example is not None:
                self._rows[example.id] = example

    def get(self, name: str) -> Example | None:
        """The row of this id, where it is finished."""
        return self._rows.get(name)

    def keep(self, rows: Sequence[Example]) -> None:
        """Append rows and sync them to disk.

        Raises:
            RunProblem: The disk is full or gone; what was written before stays good.
        """
        if not rows:
            return
        held = [row_of(row, lambda image: image.to_data_uri()) for row in rows]
        texts = [json.dumps(summed(row.model_dump(mode="json", exclude_defaults=True))) for row in held]
        # A line that was cut off by a kill ends here and is skipped when the file is read.
        before = "\n" if _begun(self._file) else json.dumps({"key": self._key}) + "\n"
        append(self._file, before + "".join(text + "\n" for text in texts))
        self._rows |= {row.id: row for row in rows}

    def finish(self) -> None:
        """Move the rows to the data that were made of them."""
        if self._file.is_file():
            self._file.replace(self._done)


def _begun(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _read(line: str) -> Example | None:
    """The row of a line; None where it was cut off or changed since."""
    try:
        row = unsummed(json.loads(line))
        return None if row is None else example_of(JsonRow.model_validate(row), "", Path())[0]
    except (ValueError, AttributeError, RecursionError):
        return None


def _key(
    attack: AbstractAttack[Any, Any], target: Target, data: Dataset, budget: Budget, seed: int, earlier: Dataset | None
) -> str:
    """SHA-256 over everything that can change a row."""
    held = [attack.name, attack.parameters, key_of(target), data.digest, budget.levels, budget.steps, seed]
    held += [] if earlier is None else [earlier.digest]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def _unchanged(attack: AbstractAttack[Any, Any], target: Target, data: Dataset) -> Attacked:
    """Where nothing may be changed: how often the target is right."""
    check_access(target, attack.name, attack.works_on, attack.needs)
    wanted = [row for row in data.examples if attack.wants(row)]
    rows, bad = spread_readable(target, wanted, None)
    attack.check_any(data, rows)
    task = attack.task(target, replace(data, examples=rows))
    parts = [rows[start : start + attack.batch] for start in range(0, len(rows), attack.batch)]
    wrong = [one for part in parts for one in attack.failed(task, attack.seen(task, part))]
    right = wilson(len(wrong) - sum(wrong), len(wrong))
    notes = notes_of_rows(len(data.examples) - len(wanted), bad)
    return Attacked(replace(data, notes=(*data.notes, *notes)), 0.0, len(wrong), right, right, right)


def _summed(attack: AbstractAttack[Any, Any], data: Dataset, budget: Budget) -> Attacked:
    attacked_rows = [row for row in data.examples if attributes_of_attack(row)]
    every = [attributes_of_attack(row) for row in attacked_rows]
    epsilon = budget.in_levels.epsilon if any(float(row["epsilon"]) for row in every) else 0.0
    words = max(int(row.get(WORDS, "0")) for row in every)
    rows = [attributes_of_attack(row) for row in attacked_rows if not stood_still(row)]
    clean, noise, attacked = (
        wilson(sum(row[what] == "right" for row in rows), len(rows)) for what in ("clean", "noise", "attacked")
    )
    return Attacked(data, epsilon, len(rows), clean, noise, attacked, words, attack.draws)
