"""Named pictures with and without shifts, as samples of the suites that hold the ones against the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vlmend.core.attacks import attributes_of_attack
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.readable import each_read
from vlmend.core.splits import Split
from vlmend.core.targets import Target
from vlmend.errors import BadData
from vlmend.pictures.galleries import shifted_objects

__all__ = ["CLEAN", "names_of", "shifted_samples"]

CLEAN = "clean"
"""The group of pictures without the attribute `shift`."""
Values = Callable[[Sequence[Example], Sequence[str]], Sequence[Mapping[str, float]]]
"""The numbers of each row among the names of all."""


def shifted_samples(
    subject: Target, data: Dataset | None, limit: int | None, split: Split, values: Values
) -> list[Sample]:
    """A sample of each picture that has a name, by shift; one that cannot be read has no values.

    Raises:
        BadData: There are fewer than two names.
    """
    given = shifted_objects(split) if data is None else data
    rows, names = _rows(given), names_of(given)
    if len(names) < 2:
        raise BadData(
            f"{given.name} has {len(rows)} pictures of {len(names)} names, so nothing can be taken for another.",
            "Pass rows with image and answers (the name), of two names or more; rows that an attack made are for "
            "robustness/adversarial.",
        )
    groups = dict.fromkeys([CLEAN, *map(_group, rows)])
    chosen = [row for group in groups for row in [one for one in rows if _group(one) == group][:limit]]
    found, bad = each_read(subject, chosen, lambda good: values(good, names))
    return [
        Sample(
            row.id, _group(row), row.attributes.get("of", row.id), row.answers[0], found.get(row.id, {}),
            reason=bad.get(row.id, ""),
        )
        for row in chosen
    ]  # fmt: skip


def names_of(data: Dataset) -> list[str]:
    """The names of its pictures."""
    return sorted({row.answers[0] for row in _rows(data)})


def _rows(data: Dataset) -> list[Example]:
    """Pictures with a name, but for those that an attack made."""
    return [row for row in data.examples if row.image is not None and row.answers and not attributes_of_attack(row)]


def _group(row: Example) -> str:
    return row.attributes.get("shift") or CLEAN
