"""The table of docs/guides/export.md, runtime by kind of edit: `python -m tools.export_table` asks every exporter.

A tiny model is put under one edit at a time, and the exporter's own refusals are written down; how near what it takes
comes to the hooks it declares itself, as measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vlmend import registry
from vlmend.core.contracts import AbstractExporter
from vlmend.core.edits import AddVector, Edit, Gate
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm
from vlmend.testing.exporters import one_of_each

__all__ = ["PAGE", "page", "table"]

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "export.md"
BEGIN, END = "<!-- written by tools.export_table -->", "<!-- to here -->"


def page() -> str:
    """The guide with the table as it has to be."""
    text = PAGE.read_text("utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def table() -> str:
    """The table, a line for each kind of edit; kinds that fare alike share one."""
    exporters = [one for one in map(registry.exporter, registry.names("exporters")) if one.works_on == "chat"]
    base = tiny_vlm()
    lines: dict[tuple[str, ...], list[str]] = {}
    for told, edit in _edits(base).items():
        cells = tuple(_cell(exporter, _under(base, edit), type(edit).__name__) for exporter in exporters)
        lines.setdefault(cells, []).append(told)
    heads = [f"[{one.name}](../exporters/{one.name}.md)" for one in exporters]
    near = ("how near to the hooks, measured", *(one.near for one in exporters))
    asked = [(", ".join(names), *cells) for cells, names in lines.items()]
    rows = [("edit", *heads), ("---",) * (1 + len(heads)), *asked, near]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _edits(base: VLM) -> Mapping[str, Edit]:
    """Each edit that is tried, by what it is called."""
    vector = torch.ones(base.anatomy.width)
    gate = Gate(Site("language", 0), vector, 0.0)
    every = AddVector(Site("language", 1), vector, "all")
    given: dict[str, Edit] = {
        "`AddVector` at every token": every,
        "the same in block 0": replace(every, site=Site("language", 0)),
        "for image requests": replace(every, when="with_image"),
        "at the last token, or at some": replace(every, tokens="last"),
        "behind a gate": replace(every, gate=gate),
    }
    kinds = {f"`{type(edit).__name__}`": edit for edit in one_of_each(base) if isinstance(edit, Edit)}
    return given | {name: edit for name, edit in kinds.items() if name != "`AddVector`"}


def _under(base: VLM, edit: Edit) -> VLM:
    card = MendCard("an edit", {}, base.name, base.model_digest, "none", "", 0, {}, {}, "none")
    return base.with_mend(Mend((edit,), card))


def _cell(exporter: AbstractExporter, view: VLM, kind: str) -> str:
    """Whether it is taken, with which option, or why not: the first sentence of each reason."""
    reasons = exporter.refusals(view, {})
    if not reasons:
        return "yes"
    if "always" in exporter.takes and not exporter.refusals(view, {"always": True}):
        return "`--always`: text-only requests too"
    return f"no: {_first(reasons, kind)}"


def _first(reasons: Sequence[str], kind: str) -> str:
    sentences = [reason.partition(". ")[0].replace(kind, "it") for reason in reasons]
    return "; ".join(sentence[0].lower() + sentence[1:] for sentence in sentences)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
