"""Whether the edits of a mend find their places in a model, asked before the model is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from vlmend.core.edits import (
    ActivationEdit,
    AddVector,
    AffineMap,
    AlignReply,
    AnyGate,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    Edit,
    FilterImage,
    Gate,
    LoadAdapter,
    ModuleEdit,
    ProjectOut,
    RefuseWhen,
    ReplaceWeights,
    ReviewReply,
    RewritePrompt,
    ShowExamples,
    ShowNearest,
    ShowReasoned,
)
from vlmend.core.sites import Site
from vlmend.errors import BadParameter
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.reading.states import block

__all__ = ["check_places"]


def check_places(anatomy: Anatomy, vocabulary: int, edits: Sequence[Edit]) -> None:
    """Refuse edits of states at places that a model does not have, or of another width.

    Args:
        anatomy: Of the model.
        vocabulary: Number of its tokens.
        edits: Those of a mend; `weights.check_weights` looks at edits of weights.

    Raises:
        BadParameter: Which edit, and what this model has.
    """
    for edit in edits:
        for site, width in _places(edit):
            block(anatomy, site)
            if width not in (None, anatomy.width):
                raise BadParameter(
                    f"{type(edit).__name__} at {site} is {width} numbers wide, and this model's states are "
                    f"{anatomy.width}.",
                    "Fit the mend again on this very model.",
                )
        if isinstance(edit, RefuseWhen) and max(edit.token_ids) >= vocabulary:
            raise BadParameter(
                f"RefuseWhen looks at token {max(edit.token_ids)}, and this model has {vocabulary}.",
                "Fit the mend again on this very model.",
            )


def _places(edit: Edit) -> Iterator[tuple[Site, int | None]]:
    """Each site that an edit reads or changes, with the width of the states it takes there; None where any will do."""
    match edit:
        case AddVector():
            yield edit.site, len(edit.vector)
        case ProjectOut():
            yield edit.site, edit.directions.shape[1]
        case CosineDose():
            yield edit.site, len(edit.direction)
        case AffineMap():
            yield edit.site, len(edit.bias)
        case ModuleEdit():
            yield edit.site, len(edit.write_bias)
        case ContrastShift(layers=layers, onto=onto):
            yield from ((Site("language", layer), None if onto is None else onto.shape[1]) for layer in layers)
        case RefuseWhen(layers=layers):
            yield from ((Site("language", layer), None) for layer in layers)
        case ShowNearest():
            yield edit.site, edit.states.shape[1]
        case AlignReply():
            yield from map(_of_gate, (edit.before, edit.after))
        case (
            RewritePrompt() | ShowExamples() | FilterImage() | ContrastLogits() | ShowReasoned() | ReviewReply()
            | LoadAdapter() | ReplaceWeights()
        ):  # fmt: skip
            pass
        case _:
            assert_never(edit)
    if isinstance(edit, ActivationEdit) and edit.gate is not None:
        yield _of_gate(edit.gate)


def _of_gate(gate: AnyGate) -> tuple[Site, int]:
    return gate.site, len(gate.weight) if isinstance(gate, Gate) else gate.project.shape[1]
