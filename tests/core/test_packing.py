"""Every kind of edit is saved and read back; scaling by 0 makes every kind idle."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from vlmend.core.dual_edits import (
    AcceptAbove,
    DualEdit,
    InsertTokens,
    MapImages,
    MapTexts,
    Rerank,
    ScaleLogits,
    TurnFrom,
)
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
    Tokens,
    idle,
)
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.packing import pack, unpack
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, MendMismatch

SITE = Site("language", 3)
GATE = Gate(Site("language", 1), torch.tensor([1.0, 2.0]), -0.5)
ONE_OF_EACH: tuple[AnyEdit, ...] = (
    AddVector(SITE, torch.tensor([1.0, 0.0]), "last_prompt", "with_image", GATE),
    ProjectOut(SITE, torch.eye(2), 0.5),
    CosineDose(SITE, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])),
    ContrastShift((0, 2), blank_image(4), onto=torch.ones(3, 2), mode="full", cap=0.1),
    RewritePrompt("before", "after", "system"),
    ContrastLogits((OtherView("principle"), OtherView(image=blank_image(4), question=False)), 2.0, "damp", 0.1),
    ContrastLogits((OtherView(blur=0.25),), 2.0, "effect", 0.1, constant=-3.0),
    AffineMap(SITE, torch.ones(1, 2), torch.ones(2, 1), torch.zeros(2), 0.3, "last_prompt", "prompt", gate=GATE),
    ModuleEdit(SITE, torch.ones(3, 2), torch.zeros(3), torch.ones(2, 3), torch.zeros(2)),
    FilterImage("jpeg", 75.0),
    ShowExamples(("what?",), ("a cat",), (blank_image(4),)),
    ShowNearest(SITE, torch.eye(2), ("a", "b"), ("c", "d"), ("e", "f"), "what?", 2, 1, "so:", "random", 3),
    ReplaceWeights("a.b.weight", torch.ones(2, 2)),
    RefuseWhen((1, 2), (5, 6), 0.3, "no"),
    ReviewReply("{prompt} {reply}", "yes", "{prompt}", "{caption} {prompt}"),
    AlignReply(GATE, GATE, "As", 3, 0.7, "scorer"),
    ShowReasoned("broken", 40),
    LoadAdapter("a.b", torch.ones(1, 2), torch.ones(3, 1)),
    MapTexts(torch.eye(2), 0.5),
    MapImages(torch.eye(2), 0.5),
    TurnFrom(torch.eye(2)[:1], "text", 0.5),
    InsertTokens("vision", torch.ones(2, 3, 4)),
    ScaleLogits(2.0),
    AcceptAbove(("a cat", "a dog"), 0.3),
    Rerank(("man", "woman"), ("a man", "a woman"), ("man",)),
)


def same(first: object, second: object) -> bool:
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, Gate | OtherView):
        return type(first) is type(second) and all(
            same(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)
        )
    return first == second


def test_there_is_one_of_each_kind_here() -> None:
    assert {type(edit) for edit in ONE_OF_EACH} == {*get_args(Edit), *get_args(DualEdit)}


@pytest.mark.parametrize("edit", ONE_OF_EACH, ids=lambda edit: type(edit).__name__)
def test_an_edit_comes_back_as_it_was(edit: AnyEdit) -> None:
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
def test_scaled_by_zero_every_edit_is_idle_and_else_none_is(edit: AnyEdit) -> None:
    assert idle(edit.scaled(0.0))
    assert not idle(edit.scaled(0.5))


def test_a_sequential_shift_along_one_direction_is_refused() -> None:
    with pytest.raises(BadParameter, match="sequential"):
        ContrastShift((0,), blank_image(4), onto=torch.ones(1, 2), mode="sequential")


def test_every_edit_says_what_it_touches() -> None:
    assert all(edit.touches for edit in ONE_OF_EACH)


@pytest.mark.parametrize(
    ("tokens", "prompt"),
    [("last_prompt", False), ("last", False), ("reply", False), ("all", True), ("image", True), ("prompt", True)],
)
def test_an_edit_of_earlier_positions_touches_what_requests_share(tokens: Tokens, prompt: bool) -> None:
    assert ("prompt_states" in AddVector(SITE, torch.ones(2), tokens).touches) is prompt


def test_mends_of_the_format_before_are_read(tmp_path: Path) -> None:
    """Contrasts of logits held one principle then."""
    mend = Mend(
        (ContrastLogits((OtherView("be good"),), 2.0),), MendCard("coca", {}, "m", "d", "x", "y", 0, {}, {}, "")
    )
    mend.save(tmp_path)
    manifest = json.loads((tmp_path / "mend.json").read_text())
    old = {"kind": "ContrastLogits", "principle": "be good", "strength": 2.0, "when": "with_image"}
    kept = {key: value for key, value in manifest["card"].items() if key not in ("identity", "notes")}
    (tmp_path / "mend.json").write_text(json.dumps({"format": 2, "card": kept, "edits": [old]}))
    assert Mend.load(tmp_path).edits == mend.edits


@pytest.mark.parametrize("part", ["processor", "tokenizer", "chat_template"])
def test_a_mend_is_refused_where_a_part_of_the_model_differs_and_says_which(part: str) -> None:
    card = MendCard("m", {}, "model", "digest", "x", "y", 0, {}, {}, "", identity={"weights": "digest", part: "1"})
    Mend((), card).check_base("model", "digest", {"weights": "digest", part: "1", "generation": "any"})
    with pytest.raises(MendMismatch, match=f"with another {part.replace('_', ' ')}, though with the same weights"):
        Mend((), card).check_base("model", "digest", {"weights": "digest", part: "2"})
