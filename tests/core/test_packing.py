"""Every kind of edit is saved and read back; scaling by 0 makes every kind idle."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from vlmend.core.dual_edits import AcceptAbove, MapTexts, ScaleLogits
from vlmend.core.edits import (
    AddVector,
    AlignReply,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    Edit,
    Gate,
    LoadAdapter,
    ProjectOut,
    RefuseWhen,
    ReviewReply,
    RewritePrompt,
    idle,
)
from vlmend.core.images import blank_image
from vlmend.core.packing import pack, unpack
from vlmend.core.sites import Site
from vlmend.errors import BadParameter

SITE = Site("language", 3)
GATE = Gate(Site("language", 1), torch.tensor([1.0, 2.0]), -0.5)
ONE_OF_EACH: tuple[Edit, ...] = (
    AddVector(SITE, torch.tensor([1.0, 0.0]), "last_prompt", "with_image", GATE),
    ProjectOut(SITE, torch.eye(2), 0.5),
    CosineDose(SITE, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])),
    ContrastShift((0, 2), blank_image(4), onto=torch.ones(2, 2), mode="full", cap=0.1),
    RewritePrompt("before", "after", "system"),
    ContrastLogits("principle"),
    RefuseWhen((1, 2), (5, 6), 0.3, "no"),
    ReviewReply("{prompt} {reply}", "yes", "{prompt}", "{caption} {prompt}"),
    AlignReply(GATE, GATE, "As", 3, 0.7, "scorer"),
    LoadAdapter("a.b", torch.ones(1, 2), torch.ones(3, 1)),
    MapTexts(torch.eye(2), 0.5),
    ScaleLogits(2.0),
    AcceptAbove(("a cat", "a dog"), 0.3),
)


def same(first: object, second: object) -> bool:
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, Gate):
        return all(same(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    return first == second


def test_there_is_one_of_each_kind_here() -> None:
    assert {type(edit) for edit in ONE_OF_EACH} == set(get_args(Edit))


@pytest.mark.parametrize("edit", ONE_OF_EACH, ids=lambda edit: type(edit).__name__)
def test_an_edit_comes_back_as_it_was(edit: Edit) -> None:
    rows, content = pack([edit])
    (back,) = unpack(rows, load(content))
    assert type(back) is type(edit)
    assert all(same(getattr(edit, f.name), getattr(back, f.name)) for f in fields(edit))


def test_edits_that_share_a_gate_are_saved_whole() -> None:
    edits = [AddVector(Site("language", k), torch.ones(2), gate=GATE) for k in (1, 2, 3)]
    rows, content = pack(edits)
    assert all(same(edit.gate, GATE) for edit in unpack(rows, load(content)) if isinstance(edit, AddVector))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind of edit 'Magic'"):
        unpack([{"kind": "Magic"}], {})


@pytest.mark.parametrize("edit", ONE_OF_EACH, ids=lambda edit: type(edit).__name__)
def test_scaled_by_zero_every_edit_is_idle_and_else_none_is(edit: Edit) -> None:
    assert idle(edit.scaled(0.0))
    assert not idle(edit.scaled(0.5))


def test_a_sequential_shift_along_one_direction_is_refused() -> None:
    with pytest.raises(BadParameter, match="sequential"):
        ContrastShift((0,), blank_image(4), onto=torch.ones(1, 2), mode="sequential")
