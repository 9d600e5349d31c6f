"""What there is of each group of plug-ins, in rows of text: from the registry and what plug-ins declare."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlmend import registry
from vlmend.core.plugins import Plugin, held_by
from vlmend.data.catalogue import listed_adapters
from vlmend.data.requests import builtin_requests
from vlmend.errors import UsageError

__all__ = ["listed"]

Row = dict[str, str]


def listed(group: str, axis: str = "") -> list[Row]:
    """One row a plug-in, by full name; every row of a group has the same columns.

    Raises:
        UsageError: There is no such group or axis, or the group knows no axes.
    """
    if axis and not registry.group_of(group).by_axis:
        known = ", ".join(name for name, one in registry.GROUPS.items() if one.by_axis)
        raise UsageError(f"{group} are not told apart by axis.", f"--axis goes with {known}.")
    if group == "data":
        return [*_builtin(), *listed_adapters()]
    return [{"name": one.full, **_told(group, one)} for one in registry.plugins(group, axis)]


def _told(group: str, plugin: Plugin) -> Row:
    """The columns of a group after the name."""
    held = held_by(registry.group_of(group), plugin)
    match group:
        case "methods":
            return {
                "works on": _joined(held.works_on), "needs": held.needs, "extra work a request": held.passes,
                "fitted on": held.data, "source": held.source,
            }  # fmt: skip
        case "attacks":
            return {"works on": _joined(held.works_on), "needs": held.needs, "source": held.source}
        case "steps":
            return {"what": _summary(held), "twice is once": "yes" if held.idempotent else "no", "source": held.source}
        case "suites":
            return {"works on": _joined(held.works_on), "needs": held.needs, "measures": held.about}
        case "exporters":
            return {"works on": held.works_on, "what": held.about}
        case _:
            return {"what": _summary(held)}


def _joined(kinds: str | Sequence[str]) -> str:
    return kinds if isinstance(kinds, str) else ", ".join(kinds)


def _summary(held: Any) -> str:
    """First sentence of its docstring."""
    return " ".join((inspect.getdoc(held) or "").partition("\n\n")[0].split())


def _builtin() -> list[Row]:
    """Our own requests, as rows of data sets."""
    rows: list[Row] = []
    for kind in ("harmful", "lookalike", "ordinary"):
        counts = Counter(request.split for request in builtin_requests(kind))
        rows.append({
            "name": f"(built in) {kind}", "what": ", ".join(f"{split} {n}" for split, n in sorted(counts.items())),
            "kind": "safety", "rows": str(counts.total()), "pictures": "borrowed", "licence": "Apache-2.0",
            "from": "this package",
        })  # fmt: skip
    return rows
