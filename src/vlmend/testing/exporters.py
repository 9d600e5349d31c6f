"""The contract of exporters: what they cannot take along they refuse with every reason, and write nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch

from vlmend.core.contracts import AbstractExporter
from vlmend.core.dual_edits import AcceptAbove, Rerank, ScaleLogits
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    AlignReply,
    AnyEdit,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    Edit,
    FilterImage,
    Gate,
    LoadAdapter,
    ModuleEdit,
    OtherView,
    ProjectOut,
    RefuseWhen,
    ReplaceWeights,
    ReviewReply,
    RewritePrompt,
    ShowExamples,
    ShowNearest,
    ShowReasoned,
)
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.sites import Site
from vlmend.core.targets import LEVELS
from vlmend.errors import UsageError
from vlmend.models.vlm import VLM
from vlmend.testing.laws import Laws, bound, check_page, held, refused, require, settle
from vlmend.testing.stages import stage_of

__all__ = ["ExporterTrial", "check_exporter", "laws_of_exporter", "one_of_each"]


EDITS_OF_SCORES: Sequence[AnyEdit] = (
    ScaleLogits(2.0), AcceptAbove(("a cat", "a dog"), 0.1), Rerank(("one", "two"), ("a cat", "a dog")),
)  # fmt: skip
"""What a mend of a dual encoder may do with its scores."""


@dataclass(frozen=True, eq=False)
class ExporterTrial:
    """An exporter, and a tiny model under one edit of each kind.

    Attributes:
        exporter: The exporter.
        full: Its registered name; empty where it was handed over itself.
        docs: The folder of its page, or None.
    """

    exporter: AbstractExporter
    full: str
    docs: Path | None = None

    @property
    def views(self) -> dict[str, Any]:
        """The tiny model under an edit of each kind, by the kind's name."""
        base = stage_of(self.exporter.works_on).base
        card = MendCard(
            "an edit", {}, base.name, base.model_digest, "none", "", 0, versions(), {}, "none", dict(base.identity)
        )
        edits = one_of_each(base) if self.exporter.works_on == "chat" else EDITS_OF_SCORES
        return {type(edit).__name__: base.with_mend(Mend((edit,), card)) for edit in edits}


def check_exporter(plugin: str | AbstractExporter, docs: Path | None = None) -> None:
    """Hold an exporter to its contract; that what it writes equals the view is for tests of its own.

    Args:
        plugin: Its registered name, or the exporter.
        docs: The folder that holds `exporters/NAME.md`; without one no page is asked for.

    Raises:
        AssertionError: It breaks laws; all of them are named, with what was seen.
    """
    settle(laws_of_exporter(plugin, docs))


def laws_of_exporter(plugin: str | AbstractExporter, docs: Path | None = None) -> Laws:
    """The laws that hold for this exporter, by name, as `check_exporter` runs them."""
    exporter, full = held("exporters", plugin)
    laws = [says_what_it_is, refusals_have_a_way_out, what_is_refused_is_not_written]
    asked = laws if docs is None else [*laws, the_page_says_it]
    return bound(full or exporter.name, ExporterTrial(exporter, full, docs), asked)


@cache
def one_of_each(base: VLM) -> Sequence[AnyEdit]:
    """One edit of each kind of a model that answers, each of which this one can carry.

    Raises:
        AssertionError: A kind is lacking here.
    """
    width, site = base.anatomy.width, Site("language", 1)
    ones, thin = torch.ones(width), torch.ones(2, width)
    gate = Gate(Site("language", 0), ones, 0.0)
    name, weight = next((n, p) for n, p in base.model.named_parameters() if n.endswith("q_proj.weight"))
    rows, columns = weight.shape
    edits: tuple[AnyEdit, ...] = (
        AddVector(site, ones), ProjectOut(site, torch.eye(width)[:1]), CosineDose(site, torch.eye(width)[0], ones),
        AffineMap(site, thin, thin.T, ones), ModuleEdit(site, thin, torch.ones(2), thin.T, ones),
        ContrastShift((0, 1), blank_image(16)), RewritePrompt(before="Be kind. "), FilterImage("blur", 1.0),
        ShowExamples(("What is it?",), ("A cat.",)),
        ShowNearest(site, thin, ("a", "b"), ("c", "d"), ("e", "f"), "g", 2, 1),
        ContrastLogits((OtherView(before="Be kind. "),)), RefuseWhen((0, 1), (5, 6), 0.3, "No."),
        ReviewReply("{prompt} {reply}", "Yes", "{prompt}", "{caption} {prompt}"), AlignReply(gate, gate, "As", 2, 0.7),
        ShowReasoned("None.", 8),
        LoadAdapter(name.removesuffix(".weight"), torch.ones(1, columns), torch.ones(rows, 1)),
        ReplaceWeights(name, torch.zeros(rows, columns)),
    )  # fmt: skip
    lacking = set(get_args(Edit)) - {type(edit) for edit in edits}
    require(not lacking, f"no edit of kind {', '.join(kind.__name__ for kind in lacking)} is tried")
    return edits


# --- the laws


def says_what_it_is(trial: ExporterTrial) -> None:
    """Name and purpose are told, and the kind exists."""
    exporter = trial.exporter
    require(trial.full in ("", exporter.name), f"its name is {exporter.name!r}")
    require(bool(exporter.name.strip() and exporter.about.strip()), "it does not say its name and what it writes")
    require(exporter.works_on in LEVELS, f"it works on {exporter.works_on!r}")


def refusals_have_a_way_out(trial: ExporterTrial) -> None:
    """Each reason is a sentence with another behind it, for an edit of each kind."""
    for kind, view in trial.views.items():
        for reason in trial.exporter.refusals(view, {}):
            require(reason.rstrip(".").count(". ") >= 1, f"{kind} is refused without a way out: {reason!r}")


def what_is_refused_is_not_written(trial: ExporterTrial) -> None:
    """`write` raises with every reason, and leaves nothing behind."""
    for kind, view in trial.views.items():
        reasons = trial.exporter.refusals(view, {})
        if not reasons:
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            problem = refused(UsageError, lambda v=view, o=out: trial.exporter.write(v, o, {}), f"a view with {kind}")
            silent = [reason for reason in reasons if reason not in problem.message]
            require(not silent, f"{kind}: the error does not say {silent}")
            require(not any(Path(folder).iterdir()), f"{kind} is refused, and something was written")


def the_page_says_it(trial: ExporterTrial) -> None:
    """docs/exporters/NAME.md: what it does, what it refuses, what it costs, how it is tested."""
    assert trial.docs is not None
    name = trial.exporter.name
    sections = ("What it does", "When it refuses", "Cost", "How it is tested", "Source")
    check_page(trial.docs / "exporters" / f"{name}.md", name, sections)
