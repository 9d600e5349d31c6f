"""The study of transfer where an attack is on what models decline: its rows by condition, and its own verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from vlmend.attacks.requests import RequestAttack
from vlmend.audit.attacked import CLEAN, NOISE
from vlmend.core.attack_notes import stood_still
from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.budget import levels_of
from vlmend.core.examples import Dataset, Example
from vlmend.core.halving import by_halves
from vlmend.core.splits import word_fraction
from vlmend.core.targets import ChatTarget, Target
from vlmend.errors import FAILURES, BatchProblem, SampleError
from vlmend.studies.transfer_rows import SHUFFLED, shuffled

__all__ = ["ATTACKED", "by_condition", "declined"]

ATTACKED = "attacked"
CONDITION = "condition"
"""The attribute of a row that says how it is asked; `of` is the row that it was made of."""


def by_condition(
    attack: RequestAttack[Any, Any], source: Target, data: Dataset, made: Dataset, budget: Budget, seed: int
) -> Dataset:
    """Every attacked row four times: as it was, changed as much at random, with another's change, and attacked.

    As it was means as the source read it, so beside the picture that was lent to it. Where all rows got one picture,
    or pictures were drawn anew, there is no other's. A row on which no step could be made was not attacked.
    """
    attacked = [row for row in made.examples if attributes_of_attack(row) and not stood_still(row)]
    own = {row.id: row for row in data.examples}
    task, rows = attack.task(source, data), [own[row.attributes["of"]] for row in attacked]
    before = {row.id: row for row in attack.seen(task, rows)}
    asked = [_asked(row, row, CLEAN) for row in before.values()]
    for row in before.values():
        drawn = int(word_fraction(f"{row.id} {seed}") * 2**32)
        asked.append(_asked(attack.control(task, row, budget.in_levels, drawn), row, NOISE))
    one_for_all = len({levels_of(row).tobytes() for row in attacked}) == 1
    for row in [] if attack.draws or one_for_all else shuffled(before, attacked, seed):
        of = row.attributes["of"]
        asked.append(_asked(replace(before[of], image=row.image), before[of], SHUFFLED))
    asked += [_asked(row, before[row.attributes["of"]], ATTACKED) for row in attacked]
    return replace(made, examples=tuple(asked))


def _asked(row: Example, of: Example, condition: str) -> Example:
    told = {**row.attributes, CONDITION: condition, "of": of.id}
    return replace(row, id=f"{of.id}@{condition}", attributes=told)


def declined(attack: RequestAttack[Any, Any], target: Target, rows: Dataset) -> tuple[dict[str, dict[str, bool]], int]:
    """For each condition and row whether a model did not give in, and how many rows got no reply in one of them."""

    def verdicts(part: Sequence[Example]) -> list[bool | None]:
        return [not one for one in attack.gives_in(cast("ChatTarget", target), part)]

    found = by_halves(
        rows.examples, verdicts, lambda problem: isinstance(problem, (SampleError, BatchProblem, *FAILURES)),
        lambda row, problem: None,
    )  # fmt: skip
    right: dict[str, dict[str, bool]] = {what: {} for what in (CLEAN, NOISE, SHUFFLED, ATTACKED)}
    unscored: set[str] = set()
    for row, verdict in zip(rows.examples, found, strict=True):
        if verdict is None:
            unscored.add(row.attributes["of"])
        else:
            right[row.attributes[CONDITION]][row.attributes["of"]] = verdict
    return right, len(unscored)
