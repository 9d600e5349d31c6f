"""Which groups of people rows are of: by name of the attribute, unknown ones never a group, inferred ones marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmend.core.examples import ACCEPTED, GROUPS_BY, INFERRED, Dataset, Example
from vlmend.errors import BadData

__all__ = ["check_clusters", "check_sources", "cluster_of", "group_names", "group_of", "known", "marked", "told_groups"]

UNKNOWN = {"", "unknown", "-1", "n/a", "na", "none", "nan", "not known"}
"""What stands for a group that is not known, in small letters."""

NOT_GROUPS = {
    GROUPS_BY, "set", "pair", "neutral", "scene", "outcome", "cluster", "attack", "epsilon", "of", "shift",
    "occupation", "favours", "partition", "context", "connotation", "about", "profession", "box", "against",
}  # fmt: skip
"""Attributes that say something else."""

MOST = 20
"""Values of an attribute above which it is taken for an id or a number."""


def group_names(rows: Sequence[Example]) -> list[str]:
    """Attributes that tell a group, `group` (the category) included: those with 2 to `MOST` values that are known."""
    names = dict.fromkeys(name for row in rows for name in ("group", *row.attributes) if name not in NOT_GROUPS)
    held = {name: {group_of(row, name) for row in rows} - {""} for name in names}
    return [name for name, values in held.items() if 2 <= len(values) <= MOST]


def group_of(row: Example, name: str = "group") -> str:
    """The group of a row by that attribute; "" where it is not known."""
    told = (row.group if name == "group" else row.attributes.get(name, "")).strip()
    return told if known(told) else ""


def known(group: str) -> bool:
    """Whether that names a group."""
    return group.strip().casefold() not in UNKNOWN


def cluster_of(row: Example) -> str:
    """What a row is drawn again with: the person, where that is told."""
    return row.attributes.get("cluster") or row.id


def check_sources(data: Dataset, rows: Sequence[Example]) -> None:
    """Refuse groups that a model inferred, unless the data say that they are accepted.

    Raises:
        BadData: Rows say `groups_by: model`.
    """
    guessed = [row for row in rows if row.attributes.get(GROUPS_BY, "").strip().casefold() == INFERRED]
    if guessed:
        raise BadData(
            f"{len(guessed)} rows of {data.name} have groups that a model inferred (first: {guessed[0].id}): its own "
            "errors would be told as those of the audited model.",
            "Pass groups that people told. To go on all the same, write "
            f'"{GROUPS_BY}": "{ACCEPTED}"; every table then says that they are inferred.',
        )


def check_clusters(data: Dataset, rows: Sequence[Example], name: str = "group") -> None:
    """Refuse clusters, such as people, with rows of more than one group.

    Raises:
        BadData: There are such clusters; the first is named.
    """
    of: dict[str, set[str]] = {}
    for row in rows:
        of.setdefault(cluster_of(row), set()).update({group_of(row, name)} - {""})
    mixed = [cluster for cluster, held in of.items() if len(held) > 1]
    if mixed:
        raise BadData(
            f"{data.name} has {len(mixed)} clusters with pictures of more than one {name} (first: {mixed[0]}).",
            "A cluster is what is drawn together, such as a person, and is of one group.",
        )


def told_groups(data: Dataset) -> Dataset:
    """The data with groups as tables name them: where inferred ones are accepted, every category says so.

    Raises:
        BadData: Rows say `groups_by: model`.
    """
    check_sources(data, data.examples)
    if not any(row.attributes.get(GROUPS_BY) == ACCEPTED for row in data.examples):
        return data
    return replace(data, examples=tuple(_as_inferred(row) for row in data.examples))


def _as_inferred(row: Example) -> Example:
    """With texts that are expected to favour a group, and `favours`, in the same words as the pictures."""
    if row.label == "harmful" or not (row.group or row.attributes.get("favours")):
        return row
    told = {k: f"{v} (inferred)" if k == "favours" else v for k, v in row.attributes.items()}
    return replace(row, group=f"{row.group} (inferred)" if row.group else "", attributes=told)


def marked(row: Example, group: str) -> str:
    """The group as tables name it: inferred ones say so."""
    return f"{group} (inferred)" if group and row.attributes.get(GROUPS_BY, "") == ACCEPTED else group
