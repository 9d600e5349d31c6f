"""From the vision tower of a dual encoder to the same tower inside a chat model: mends that are good for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from vlmend.core.edits import AnyEdit
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatWeights, DualWeights
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights, WeightEdit
from vlmend.errors import BadParameter, MendMismatch
from vlmend.models.identity import of_base

__all__ = ["for_vlm"]


def for_vlm(mend: Mend, encoder: DualWeights, vlm: ChatWeights) -> Mend:
    """A mend of a dual encoder's vision tower as one of the chat model that looks through the same tower.

    Args:
        mend: Edits of weights, all inside the encoder's vision tower.
        encoder: What it was fitted on.
        vlm: The chat model; every parameter of its tower that the encoder's has must be the same.

    Raises:
        MendMismatch: The mend is another encoder's, or the towers differ; the message says in what.
        BadParameter: An edit acts elsewhere than in the vision tower.
    """
    mend.check_base(encoder.name, encoder.model_digest, of_base(encoder.identity))
    home, tower = encoder.towers.path(encoder.towers.vision), encoder.towers.vision
    inside = [_inside(edit, home) for edit in mend.edits]
    place = _place(tower, vlm)
    _check_same(tower, vlm.model.get_submodule(place), encoder.name, vlm.name)
    note = f"Fitted on the vision tower of {encoder.name}, which {vlm.name} shares."
    card = replace(
        mend.card, model=vlm.name, model_digest=vlm.model_digest, identity=dict(vlm.identity),
        notes=(*mend.card.notes, note),
    )  # fmt: skip
    return Mend(tuple(_readdressed(edit, home, place) for edit in inside), card)


def _inside(edit: AnyEdit, home: str) -> WeightEdit:
    path = _path(edit) if isinstance(edit, WeightEdit) else ""
    if isinstance(edit, WeightEdit) and path.startswith(f"{home}."):
        return edit
    raise BadParameter(
        f"{type(edit).__name__}{f' of {path}' if path else ''} does not act inside the vision tower ({home}).",
        "Only mends of the tower's weights can go with it into a chat model: train them with part vision.",
    )


def _path(edit: WeightEdit) -> str:
    match edit:
        case LoadAdapter():
            return edit.module
        case ReplaceWeights():
            return edit.parameter
        case _:
            assert_never(edit)


def _readdressed(edit: WeightEdit, home: str, place: str) -> WeightEdit:
    path = place + _path(edit).removeprefix(home)
    match edit:
        case LoadAdapter():
            return replace(edit, module=path)
        case ReplaceWeights():
            return replace(edit, parameter=path)
        case _:
            assert_never(edit)


def _place(tower: nn.Module, vlm: ChatWeights) -> str:
    """Dotted path of the module in the chat model's tower that has every parameter of the encoder's tower."""
    wanted, root = set(_parameters(tower)), vlm.anatomy.vision_path
    within: Any = vlm.model.get_submodule(root)
    for path, module in within.named_modules():
        if wanted <= set(_parameters(module)):
            return f"{root}.{path}" if path else root
    raise MendMismatch(
        f"The vision tower of {vlm.name} ({type(within).__name__}) has not the parameters of the encoder's "
        f"({type(tower).__name__}).",
        "Fit the mend on the dual encoder whose tower this model was built from.",
    )


def _check_same(tower: nn.Module, other: nn.Module, encoder: str, vlm: str) -> None:
    ours, theirs = _parameters(tower), _parameters(other)
    different = [name for name, value in ours.items() if not _same(value, theirs[name])]
    if different:
        raise MendMismatch(
            f"{len(different)} of {len(ours)} parameters of the vision tower of {vlm} are not those of {encoder}, "
            f"first {different[0]}.",
            "Its tower was trained further, or is another one; fit the mend on the encoder with that very tower.",
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal in the coarser of the two precisions."""
    coarser = one.dtype if one.element_size() < other.element_size() else other.dtype
    return one.shape == other.shape and torch.equal(one.detach().cpu().to(coarser), other.detach().cpu().to(coarser))


def _parameters(module: nn.Module) -> Mapping[str, Tensor]:
    return dict(module.named_parameters())
