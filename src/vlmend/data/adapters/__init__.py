"""Public benchmarks, one adapter each: `ADAPTERS["xstest"].read(path)`."""

from __future__ import annotations

from vlmend.data.adapters.adapter import Adapter
from vlmend.data.adapters.multimodal import MULTIMODAL
from vlmend.data.adapters.over_refusal import OVER_REFUSAL
from vlmend.data.adapters.picture_pairs import PICTURE_PAIRS
from vlmend.data.adapters.text_attacks import TEXT_ATTACKS
from vlmend.data.adapters.utility import UTILITY

__all__ = ["ADAPTERS", "Adapter", "adapter_table", "listed_adapters"]

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter for adapter in (*TEXT_ATTACKS, *MULTIMODAL, *PICTURE_PAIRS, *OVER_REFUSAL, *UTILITY)
}


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
            "from": "hub or path" if one.hub else "path",
        }
        for one in ADAPTERS.values()
    ]


def adapter_table() -> str:
    """The table of docs/data.md, in Markdown."""
    lines = ["| name | what | rows | pictures | licence | how to get it |", "|---|---|---|---|---|---|"]
    for one in ADAPTERS.values():
        pictures = {"optional": f"optional; without: {one.as_text}", "paired": "none, or by `CAPTIONS.jsonl`"}
        hub = f" Or `{one.name}` alone{' once its terms are accepted' if one.hub.gated else ''}." if one.hub else ""
        if one.hub and one.pictures == "needed" and all(name.endswith(("json", "jsonl")) for name in one.hub.files):
            hub = f" The rows come from the hub with `{one.name}::PICTURES`."
        cells = (
            f"`{one.name}`",
            f"[{one.title}]({one.repository}) ({one.paper})",
            _rows(one),
            pictures.get(one.pictures, one.pictures),
            one.licence + (", test only" if one.test_only else ""),
            one.how + hub,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(adapter: Adapter) -> str:
    """`100 harmful, 100 benign`; a question mark where the full number is not known here."""
    counts = {"harmful": adapter.harmful, "benign": adapter.benign}
    return ", ".join(f"{'?' if n is None else n} {label}" for label, n in counts.items() if n != 0)
