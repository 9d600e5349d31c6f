"""Public sets by name: `adapters()["xstest"].read(path)`; found as plug-ins, and named in no table.

A file in `vlmend.data.adapters` holds `ADAPTERS`. Another package gives one adapter, or a tuple of them, with an entry
point in the group `vlmend.data`.
"""

from __future__ import annotations

from functools import cache
from typing import cast

from vlmend.core.plugins import Group, Plugin, held_by, plugins_of
from vlmend.data.adapter import Adapter
from vlmend.errors import NameClash, UsageError

__all__ = ["GROUP", "adapter_table", "adapters", "listed_adapters"]

GROUP = Group("data", "data set", "vlmend.data.adapters", "ADAPTERS")


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter by the name of its set, in the order of names.

    Raises:
        NameClash: Two sets have one name; both places are named.
        BrokenPlugin: A place cannot be imported.
        UsageError: It holds something else than adapters.
    """
    found: dict[str, tuple[str, Adapter]] = {}
    for plugin in plugins_of(GROUP).values():
        for adapter in _held(plugin):
            other, _ = found.get(adapter.name, ("", None))
            if other:
                raise NameClash(
                    f"Two data sets are called {adapter.name}: in {other} and in {plugin.place}.",
                    "Rename one of them: names are unique over all packages.",
                )
            found[adapter.name] = (plugin.place, adapter)
    return {name: adapter for name, (_, adapter) in sorted(found.items())}


def listed_adapters() -> list[dict[str, str]]:
    """One row a set, for tables on a screen."""
    return [
        {
            "name": one.name,
            "what": one.title,
            "kind": one.kind,
            "rows": _rows(one),
            "pictures": one.pictures,
            "licence": one.licence + (", test only" if one.test_only else ""),
            "from": "made here" if one.made else "hub or path" if one.hub else "path",
        }
        for one in adapters().values()
    ]


def adapter_table() -> str:
    """The table of docs/data.md, in Markdown."""
    lines = ["| name | what | rows | pictures | licence | how to get it |", "|---|---|---|---|---|---|"]
    for one in adapters().values():
        pictures = {"optional": f"optional; without: {one.as_text}", "paired": "none, or by `CAPTIONS.jsonl`"}
        hub = f" Or `{one.name}` alone{' once its terms are accepted' if one.hub.gated else ''}." if one.hub else ""
        if one.hub and one.pictures == "needed" and all(name.endswith(("json", "jsonl")) for name in one.hub.files):
            hub = f" The rows come from the hub with `{one.name}::PICTURES`."
        cells = (
            f"`{one.name}`",
            f"[{one.title}]({one.repository.removeprefix('docs/')})" + ("" if one.made else f" ({one.paper})"),
            _rows(one),
            "drawn" if one.made else pictures.get(one.pictures, one.pictures),
            one.licence + (", test only" if one.test_only else ""),
            one.how + hub,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _held(plugin: Plugin) -> tuple[Adapter, ...]:
    held = cast("object", held_by(GROUP, plugin))
    several = cast("tuple[object, ...]", held) if isinstance(held, tuple) else (held,)
    sets = tuple(one for one in several if isinstance(one, Adapter))
    if len(sets) != len(several) or not sets:
        raise UsageError(
            f"{plugin.place} holds no data adapters.",
            "It must be an `Adapter` or a tuple of them (vlmend.data.adapter).",
        )
    return sets


def _rows(adapter: Adapter) -> str:
    """`100 harmful, 100 benign`; a question mark where the full number is not known here."""
    counts = {"harmful": adapter.harmful, "benign": adapter.benign, "without label": adapter.unlabelled}
    return ", ".join(f"{'?' if n is None else n} {label}" for label, n in counts.items() if n != 0)
