"""VLGuard: rows, labels, the adapter against peft's own model, and a base that nobody touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.errors import BadData, BadImage, BadParameter
from vlmend.methods.safety.vlguard import (
    QUESTION,
    REFUSALS,
    Row,
    VLGuard,
    adapters_of,
    encoded,
    rows_of,
    tuned,
    twin_of,
)
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget, full_digest, hook_count, tiny_vlm
from vlmend.training.losses import reply_loss

OWN = blank_image(16)
DATA = Dataset(
    "d",
    (
        Example("0", "trap one", "harmful", image=OWN),
        Example("1", "cake one", "benign"),
        Example("2", "trap two", "harmful"),
        Example("3", "cake two", "benign", image=OWN),
    ),
)
IMAGE = noise_image(16, 1)
BATCH = [Conversation.ask("what is it", IMAGE), Conversation.ask("hello")]
QUICK = VLGuard(steps=3, batch=2, rate=1e-2)


def test_labels_and_padding_worked_out_by_hand(tiny: VLM) -> None:
    """Ids: `a` 69, `b` 70, `c` 71, end 1, padding 0. Prompts go left, replies right; a cut reply gets no end."""
    rows = [Row(Conversation.ask("hi", IMAGE), "ab", True), Row(Conversation.ask("hello", IMAGE), "c", False)]
    inputs, labels = encoded(tiny.reader, rows)
    assert labels.tolist() == [[69, 70, 1], [71, -100, -100]]
    assert inputs["input_ids"][:, -3:].tolist() == [[69, 70, 1], [71, 0, 0]]
    assert inputs["attention_mask"][:, -3:].tolist() == [[1, 1, 1], [1, 0, 0]]
    prompts = tiny.reader.inputs([row.asked for row in rows])
    assert torch.equal(inputs["input_ids"][:, :-3], prompts["input_ids"])
    assert torch.equal(inputs["attention_mask"][:, :-3], prompts["attention_mask"])


def test_rows_are_refusals_and_own_text_replies_beside_images(tiny: VLM) -> None:
    rows = rows_of(tiny, DATA, "post_hoc", 4, 0)
    assert [(row.asked.prompt, len(row.asked.images)) for row in rows] == [
        ("trap one", 1), ("trap two", 1), ("cake one", 1), ("cake two", 1)
    ]  # fmt: skip
    assert [row.reply for row in rows[:2]] == list(REFUSALS[:2])
    said = tiny.generate([Conversation.ask("cake one"), Conversation.ask("cake two")], Sampling(24))
    assert [(row.reply, row.ends) for row in rows[2:]] == [(r.text, r.stop == "stop") for r in said]
    assert rows[0].asked.images == rows[3].asked.images == (OWN,)
    assert rows[1].asked.images != rows[2].asked.images


def test_one_row_in_three_of_mixed_asks_what_a_picture_shows(tiny: VLM) -> None:
    rows = rows_of(tiny, DATA, "mixed", 4, 0)
    asked = [row for row in rows if row.asked.prompt == QUESTION]
    assert (len(asked), len(rows)) == (2, 6)
    said = tiny.generate([row.asked for row in asked], Sampling(24))
    assert [row.reply for row in asked] == [reply.text for reply in said]


def test_no_more_anchors_than_asked_are_used_half_of_each_label(tiny: VLM) -> None:
    rows = rows_of(tiny, DATA, "post_hoc", 2, 0)
    assert [row.asked.prompt for row in rows] == ["trap one", "cake one"]


def test_scale_and_products_worked_out_by_hand(tiny: VLM) -> None:
    """Rank 1, alpha 2. A of ones and B of 3: every output gains 2 * 3 * (x_1 + ... + x_32), 192 for x = 1."""
    twin = twin_of(tiny, rank=1, seed=0)
    for name, parameter in twin.named_parameters():
        if "lora_" in name:
            nn.init.constant_(parameter, 1.0 if "lora_A" in name else 3.0)
    edit = next(e for e in adapters_of(tiny, twin) if e.module.endswith("0.self_attn.q_proj"))
    assert set(edit.down.flatten().tolist()) == {1.0}
    assert set(edit.up.flatten().tolist()) == {6.0}
    x = torch.ones(1, 32)
    before, after = (m.get_submodule(edit.module)(x) for m in (tiny.model, twin))
    torch.testing.assert_close(after - before, torch.full((1, 32), 192.0), atol=1e-3, rtol=0)


def test_every_linear_module_of_the_decoder_is_adapted_and_none_of_the_tower(tiny: VLM) -> None:
    """Four blocks of seven."""
    names = [edit.module for edit in adapters_of(tiny, twin_of(tiny, rank=1, seed=0))]
    assert len(names) == len(set(names)) == 28
    assert all(name.startswith(f"{tiny.anatomy.blocks_path}.") for name in names)


def of_twin(target: VLM, twin: Any) -> VLM:
    """The twin as a model of its own."""
    return replace(target, model=twin, anatomy=find_anatomy(twin))


def test_the_mend_gives_the_logits_of_the_trained_peft_model(tiny: VLM) -> None:
    twin = tuned(QUICK, tiny, rows_of(tiny, DATA, "post_hoc", 4, 0), 0)
    mend = QUICK.made(tiny, DATA, 0, adapters_of(tiny, twin), {})
    mended = tiny.with_mend(mend).logits(BATCH)
    torch.testing.assert_close(mended, of_twin(tiny, twin).logits(BATCH), atol=1e-5, rtol=0)
    assert (mended - tiny.logits(BATCH)).abs().max() > 1e-3


def test_an_adapter_before_training_changes_nothing(tiny: VLM) -> None:
    """B starts at zero."""
    twin = twin_of(tiny, rank=8, seed=0)
    torch.testing.assert_close(of_twin(tiny, twin).logits(BATCH), tiny.logits(BATCH), atol=1e-6, rtol=0)


def traces(target: VLM) -> tuple[object, ...]:
    """All that training could leave behind: weights, hooks, classes, attributes, gradients."""
    modules = dict(target.model.named_modules())
    return (
        full_digest(target.model),
        hook_count(target.model),
        {name: type(module) for name, module in modules.items()},
        {name: sorted(vars(module)) for name, module in modules.items()},
        {name: (id(p), p.requires_grad, p.grad) for name, p in target.model.named_parameters()},
        target.model.training,
    )


def test_training_leaves_no_trace_on_the_model() -> None:
    target = tiny_vlm(seed=0)
    target.generate(BATCH, Sampling(1))  # transformers leaves hooks of its own on first use
    before, state = traces(target), torch.get_rng_state()
    twin = twin_of(target, rank=2, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(twin.get_submodule(f"{target.anatomy.blocks_path}.0.mlp.up_proj")) is not nn.Linear
    QUICK.fit(target, DATA, seed=0)
    assert traces(target) == before


def test_a_failed_training_leaves_no_trace_either() -> None:
    target = tiny_vlm(seed=0)
    target.generate(BATCH, Sampling(1))
    before = traces(target)
    rows = [Row(Conversation.ask("hi", Image(b"no image")), "ab", True)]
    with pytest.raises(BadImage):
        tuned(QUICK, target, rows, 0)
    assert traces(target) == before


def test_training_makes_the_refusals_likelier(tiny: VLM) -> None:
    rows = [row for row in rows_of(tiny, DATA, "post_hoc", 4, 0) if row.reply in REFUSALS]
    inputs, labels = encoded(tiny.reader, rows)

    def loss(model: Any) -> float:
        with torch.no_grad():
            logits = model(**inputs, logits_to_keep=labels.shape[1] + 1).logits
        return float(reply_loss(logits[:, :-1], labels))

    twin = tuned(VLGuard(steps=12, batch=4, rate=1e-2), tiny, rows_of(tiny, DATA, "post_hoc", 4, 0), 0)
    assert loss(twin) < loss(tiny.model) - 0.5


def test_the_same_seed_gives_the_same_mend_and_another_seed_another(tiny: VLM) -> None:
    first, again, other = (QUICK.fit(tiny, DATA, seed=seed).digest for seed in (0, 0, 1))
    assert first == again != other


def test_half_precision_is_trained_in_full() -> None:
    target = tiny_vlm(seed=0, dtype=torch.bfloat16)
    twin = twin_of(target, rank=2, seed=0)
    assert {p.dtype for p in twin.parameters() if p.requires_grad} == {torch.float32}
    mend = QUICK.fit(target, DATA, seed=0)
    moved = (target.with_mend(mend).logits(BATCH) - target.logits(BATCH)).abs().max()
    assert moved > 0


def test_a_target_without_weights_is_refused() -> None:
    with pytest.raises(BadParameter, match="out of reach"):
        VLGuard().fit(ScriptedTarget(lambda c, mended: ""), DATA, seed=0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"rank": 0}, {"most": 1}, {"rate": 0.0}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any], tiny: VLM) -> None:
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        VLGuard(**wrong).fit(tiny, DATA, seed=0)


@pytest.mark.parametrize("label", ["harmful", "benign"])
def test_both_labels_are_needed(label: str, tiny: VLM) -> None:
    with pytest.raises(BadData, match="to fit on"):
        QUICK.fit(tiny, Dataset("one", DATA.labelled(label)), seed=0)  # type: ignore[arg-type]
