"""Twins of towers of chat models and dual encoders: what learns, what comes back, and a model that nobody touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vlmend.core.conversation import Conversation
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights, WeightEdit
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM
from vlmend.testing import full_digest, hook_count, tiny_clip, tiny_vlm
from vlmend.training.twin import How, Part, Twin, twin_of

IMAGES = [noise_image(16, k) for k in range(3)]
TEXTS = ["a cat", "two dogs"]
BATCH = [Conversation.ask("what is it", IMAGES[0]), Conversation.ask("hello")]


def mend_of(target: Any, edits: list[WeightEdit]) -> Mend:
    return Mend(tuple(edits), MendCard("m", {}, target.name, target.model_digest, "d", "", 0, {}, {}, ""))


def moved(twin: Twin) -> Twin:
    """As if it had learnt: every learning number is another one."""
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters:
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return twin


def of_twin(target: VLM, twin: Twin) -> VLM:
    """The twin as a model of its own."""
    return replace(target, model=twin.model, anatomy=find_anatomy(twin.model))


def test_scale_and_products_worked_out_by_hand(tiny: VLM) -> None:
    """Rank 1, alpha 2. A of ones and B of 3: every output gains 2 * 3 * (x_1 + ... + x_32), 192 for x = 1."""
    twin = twin_of(tiny, "decoder", rank=1, seed=0)
    for name, parameter in twin.model.named_parameters():
        if "lora_" in name:
            nn.init.constant_(parameter, 1.0 if "lora_A" in name else 3.0)
    edit = next(e for e in twin.edits if isinstance(e, LoadAdapter) and e.module.endswith("0.self_attn.q_proj"))
    assert set(edit.down.flatten().tolist()) == {1.0}
    assert set(edit.up.flatten().tolist()) == {6.0}
    x = torch.ones(1, 32)
    before, after = (m.get_submodule(edit.module)(x) for m in (tiny.model, twin.model))
    torch.testing.assert_close(after - before, torch.full((1, 32), 192.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("part", "count"), [("decoder", 28), ("projector", 2), ("vision", 12)])
def test_every_linear_module_of_the_part_learns_and_no_other(tiny: VLM, part: Part, count: int) -> None:
    """Four blocks of seven; two layers of LLaVA's projector; two vision blocks of six."""
    twin = twin_of(tiny, part, rank=1, seed=0)
    root = {"decoder": tiny.anatomy.blocks_path, "vision": tiny.anatomy.vision_path}.get(part, "multi_modal_projector")
    assert len(set(twin.learning)) == len(twin.learning) == len(twin.parameters) // 2 == count
    assert all(root in name for name in twin.learning)


def test_a_pattern_chooses_among_the_modules(tiny: VLM) -> None:
    twin = twin_of(tiny, "decoder", only=r"\.0\..*(q|v)_proj$", seed=0)
    assert [name.rpartition(".")[2] for name in twin.learning] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("how", ["adapters", "weights"])
@pytest.mark.parametrize("part", ["decoder", "projector", "vision", "all"])
def test_the_edits_give_the_logits_of_the_twin_of_a_chat_model(tiny: VLM, part: Part, how: How) -> None:
    twin = moved(twin_of(tiny, part, how, rank=2, seed=0))
    mended = tiny.with_mend(mend_of(tiny, twin.edits)).logits(BATCH)
    torch.testing.assert_close(mended, of_twin(tiny, twin).logits(BATCH), atol=1e-4, rtol=1e-4)
    assert (mended - tiny.logits(BATCH)).abs().max() > 1e-3


@pytest.mark.parametrize("how", ["adapters", "weights"])
@pytest.mark.parametrize("part", ["vision", "text", "all"])
def test_the_edits_give_the_logits_of_the_twin_of_a_dual_encoder(part: Part, how: How) -> None:
    target = tiny_clip()
    twin = moved(twin_of(target, part, how, rank=2, seed=0))
    mended = target.with_mend(mend_of(target, twin.edits)).logits(IMAGES, TEXTS)
    torch.testing.assert_close(mended, target.on(twin.model).logits(IMAGES, TEXTS), atol=1e-5, rtol=1e-4)
    assert (mended - target.logits(IMAGES, TEXTS)).abs().max() > 1e-3


@pytest.mark.parametrize("how", ["adapters", "weights"])
def test_a_twin_that_has_learnt_nothing_is_the_model(how: How) -> None:
    target = tiny_clip()
    twin = twin_of(target, "vision", how, seed=0)
    torch.testing.assert_close(
        target.on(twin.model).embed_images(IMAGES), target.embed_images(IMAGES), atol=1e-6, rtol=0
    )
    if how == "weights":
        assert twin.edits == []


def test_only_parameters_that_moved_come_back() -> None:
    twin = twin_of(tiny_clip(), "vision", "weights", seed=0)
    twin.parameters[3].data += 1
    (edit,) = twin.edits
    assert isinstance(edit, ReplaceWeights)
    assert edit.parameter == twin.learning[3]


def test_the_scale_of_logits_is_left_alone() -> None:
    """It is read when the encoder is loaded: an edit of it would do nothing."""
    assert "logit_scale" not in twin_of(tiny_clip(), "all", "weights", seed=0).learning


def test_weights_that_two_modules_share_stay_shared_in_the_twin(tiny: VLM) -> None:
    target = tiny_vlm()
    target.model.lm_head.weight = target.model.get_input_embeddings().weight
    twin = twin_of(target, "all", "weights", seed=0)
    assert twin.model.lm_head.weight is twin.model.get_input_embeddings().weight
    assert sum("embed_tokens" in name or "lm_head" in name for name in twin.learning) == 1
    mended = target.with_mend(mend_of(target, moved(twin).edits)).logits(BATCH)
    torch.testing.assert_close(mended, of_twin(target, twin).logits(BATCH), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", ["adapters", "weights"])
def test_learning_leaves_no_trace_on_the_model(how: How) -> None:
    target = tiny_clip()
    model = target.towers.model

    def traces() -> object:
        kinds = {name: (type(module), sorted(vars(module))) for name, module in model.named_modules()}
        held = {name: (id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()}
        return full_digest(model), hook_count(model), kinds, held, torch.get_rng_state().tolist()

    before = traces()
    twin = twin_of(target, "vision", how, rank=2, seed=0)
    target.on(twin.model).image_features(target.pixels(IMAGES)).sum().backward()
    moved(twin)
    assert traces() == before


def test_adapters_of_a_model_in_half_precision_are_in_full() -> None:
    twin = twin_of(tiny_vlm(dtype=torch.bfloat16), "decoder", rank=2, seed=0)
    assert {parameter.dtype for parameter in twin.parameters} == {torch.float32}


def test_weights_in_half_precision_are_not_trained() -> None:
    with pytest.raises(BadParameter, match="lost in rounding"):
        twin_of(tiny_vlm(dtype=torch.bfloat16), "decoder", "weights", seed=0)


def test_a_part_that_is_not_there_and_a_pattern_that_fits_nothing_are_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match=r"no part 'text'.*decoder, projector, vision and all"):
        twin_of(tiny, "text", seed=0)
    for how in ("adapters", "weights"):
        with pytest.raises(ModelProblem, match=r"to (adapt|learn)|was chosen to learn"):
            twin_of(tiny, "decoder", how, only="nothing like this", seed=0)
