"""docs/plugins.md, the list of everything that plugs in: `python -m tools.plugin_index` writes it from the registry."""

from __future__ import annotations

import re
from pathlib import Path

from vlmend import registry
from vlmend.core.plugins import held_by
from vlmend.listing import listed

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
GROUPS = {
    "suites": "Suites measure", "attacks": "Attacks make data that breaks a model", "methods": "Methods mend",
    "steps": "Steps turn data into other data", "exporters": "Exporters ship a mend",
}  # fmt: skip
AXES = ("safety", "privacy", "fairness", "robustness", "utility", "")
HEAD = """# Everything that plugs in
One line each, as they describe themselves; names lead to pages. `vlmend list suites --axis fairness` tells the same.
"""
SHORT = 200
"""Characters of a description."""


def page() -> str:
    """The page as it has to be."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        rows = listed(group)
        parts.append(f"\n## {title}\n")
        for axis in AXES:
            own = [row for row in rows if _axis(row["name"]) == axis]
            if own:
                head = f"### {axis}\n" if axis else ""
                parts.append(f"{head}| name | on | what |\n|---|---|---|\n")
                parts += [_line(group, row) for row in own]
                parts.append("\n")
    return re.sub("\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def _axis(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _line(group: str, row: dict[str, str]) -> str:
    name = row["name"].rpartition("/")[2]
    there = (PAGE.parent / group / f"{name}.md").exists()
    what = row.get("measures") or row.get("what") or _what(group, row["name"])
    shown = f"[{name}]({group}/{name}.md)" if there else name
    return f"| {shown} | {row.get('works on', 'data')} | {what} |\n"


def _what(group: str, name: str) -> str:
    """First line of the docstring of a plug-in that has no description of its own."""
    plugin = next(one for one in registry.plugins(group) if one.full == name)
    held = held_by(registry.group_of(group), plugin)
    told = " ".join((held.__doc__ or "").partition("\n\n")[0].split())
    return told if len(told) <= SHORT else told[:SHORT].rsplit(" ", 1)[0] + " ..."


if __name__ == "__main__":
    PAGE.write_text(page())
