"""Edits of weights in every family: the stock class with merged weights has the logits of the hooked model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.families import FAMILIES, NEEDS, STAND_INS, family
from tests.models.families.asking import SEEN, WORDS
from torch import nn

from vlmend.core.edits import AddVector, Edit, LoadAdapter, ReplaceWeights
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.export.checkpoint.folding import folded
from vlmend.export.checkpoint.refusals import refusals
from vlmend.export.hf import export_hf
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM

UNREAD = {*NEEDS, *STAND_INS}
"""Families whose own processor cannot be loaded here: folded in memory, not written."""

LOST = {"qwen3_5": "answers otherwise once", "aria": "KeyError"}
"""Families whose tiny processor is another one once it was saved (tokenizer, picture sizes), and how that is told."""

WITH_BIASES = {
    "llava", "vipllava", "idefics3", "smolvlm", "deepseek_vl", "deepseek_vl_hybrid", "janus", "instructblip",
}  # fmt: skip
"""Families whose text model has a flag for biases and nothing behind its MLPs."""


def linears(vlm: VLM) -> dict[str, list[str]]:
    """Plain linear modules of the decoder's blocks, of the vision tower, and of what lies between."""
    towers = {"decoder": f"{vlm.anatomy.blocks_path}.", "tower": f"{vlm.anatomy.vision_path}."}
    names = [
        name for name, module in vlm.model.named_modules() if type(module) is nn.Linear and not name.endswith("lm_head")
    ]
    found = {where: [name for name in names if name.startswith(path)] for where, path in towers.items()}
    return found | {"between": [name for name in names if not name.startswith((*towers.values(),))]}


def edits_of(vlm: VLM) -> list[Edit]:
    """An adapter for a module of the last block and one for each module between; a weight of the tower replaced."""
    draw, places = torch.Generator().manual_seed(0), linears(vlm)
    edits: list[Edit] = []
    for name in (places["decoder"][-1], *places["between"]):
        out, into = vlm.model.get_submodule(name).weight.shape
        down, up = torch.randn(2, into, generator=draw), torch.randn(out, 2, generator=draw)
        edits.append(LoadAdapter(name, down, up, strength=0.05))
    if places["tower"]:
        name = f"{places['tower'][0]}.weight"
        value = torch.randn(vlm.model.get_parameter(name).shape, generator=draw)
        edits.append(ReplaceWeights(name, value, strength=0.3))
    return edits


def mended(vlm: VLM, *edits: Edit) -> VLM:
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return vlm.with_mend(Mend(edits, card))


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_and_weights_are_merged_exactly_in_every_family(name: str, tmp_path: Path) -> None:
    vlm = family(name)
    view = mended(vlm, *edits_of(vlm))
    assert refusals(view, always=False) == []
    stock = folded(view) if name in UNREAD or name in LOST else load(export_hf(view, tmp_path / "out").folder)
    assert type(stock.model) is type(vlm.model)
    for asked in (WORDS, SEEN):
        hooked = view.logits([asked])
        assert (hooked - vlm.logits([asked])).abs().max() > 1e-3 or asked is WORDS
        assert (stock.logits([asked]) - hooked).abs().max() <= 1e-5 * hooked.abs().max().clamp_min(1)


@pytest.mark.parametrize("name", LOST)
def test_a_checkpoint_that_reads_requests_otherwise_is_not_kept(name: str, tmp_path: Path) -> None:
    view = mended(family(name), *edits_of(family(name)))
    with pytest.raises(ModelProblem, match=LOST[name]):
        export_hf(view, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_vector_at_every_token_is_folded_exactly_or_refused(name: str) -> None:
    vlm = family(name)
    view = mended(vlm, AddVector(Site("language", 1), torch.linspace(-1, 1, 32), "all"))
    told = refusals(view, always=False)
    assert (told == []) == (name in WITH_BIASES), told
    if not told:
        hooked = view.logits([SEEN])
        assert (folded(view).logits([SEEN]) - hooked).abs().max() <= 1e-5 * hooked.abs().max().clamp_min(1)
