"""What a step did to a data set, told: how many rows were kept, changed, dropped and added, which, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from vlmend.core.contracts import Changed, DataEdit
from vlmend.core.examples import Example

__all__ = ["report_page", "report_values", "summary"]

WORDS_OF_ROW = ("prompt", "label", "group", "caption", "answers", "attributes")
"""Fields whose values a report shows."""


def summary(edit: DataEdit) -> str:
    """`120 kept, 0 changed, 7 dropped`, and how many were added where some were."""
    told = f"{edit.kept} kept, {len(edit.changed)} changed, {len(edit.dropped)} dropped"
    return f"{told}, {len(edit.added)} added" if edit.added else told


def report_values(edit: DataEdit) -> dict[str, Any]:
    """The report as JSON values: rows by id, with the fields that differ."""
    return {
        "data": edit.data.name, "digest": edit.data.digest, "notes": list(edit.data.notes),
        "kept": edit.kept,
        "changed": [
            {"id": one.after.id, "of": one.before.id, "why": one.why, "fields": _differing(one, edit.secret)}
            for one in edit.changed
        ],
        "dropped": [{"id": one.example.id, "why": one.why} for one in edit.dropped],
        "added": [{"id": one.example.id, "why": one.why} for one in edit.added],
        "tables": {name: [dict(row) for row in rows] for name, rows in edit.tables.items()},
    }  # fmt: skip


def report_page(edit: DataEdit) -> str:
    """The report in Markdown. It holds ids, reasons and tables, and no row's text."""
    parts = [f"# {edit.data.name}\n", f"{summary(edit)}.\n"]
    parts += [f"- {note}" for note in edit.data.notes]
    for name, rows in edit.tables.items():
        parts += [f"\n## {name.capitalize()}\n", _table(rows)]
    if edit.changed:
        rows = [
            {"row": one.after.id, "of": one.before.id, "fields": ", ".join(_differing(one)), "why": one.why}
            for one in edit.changed
        ]
        parts += ["\n## Changed\n", _table(_reasons(rows)), "\n", _table(rows)]
    for title, those in (("Dropped", edit.dropped), ("Added", edit.added)):
        if those:
            rows = [{"row": one.example.id, "why": one.why} for one in those]
            parts += [f"\n## {title}\n", _table(_reasons(rows)), "\n", _table(rows)]
    return "\n".join(parts) + "\n"


def _differing(one: Changed, secret: bool = False) -> dict[str, dict[str, Any]]:
    """Fields that are not as they were; pictures, turns and what is secret are named without their content."""
    found: dict[str, dict[str, Any]] = {}
    for name in (field.name for field in fields(Example)):
        before, after = getattr(one.before, name), getattr(one.after, name)
        if before != after:
            found[name] = {"before": before, "after": after} if name in WORDS_OF_ROW and not secret else {}
    return found


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many rows there are for each kind of reason: what stands before the first colon."""
    counts = Counter(str(row["why"]).partition(":")[0] for row in rows)
    return [{"why": why, "rows": count} for why, count in counts.most_common()]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    shown = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return " ".join(shown.replace("|", "\\|").split())
