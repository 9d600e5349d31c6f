"""VLGuard: rows, labels, the adapter against peft's own model, and a base that nobody touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import LoadAdapter
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.errors import BadData, BadImage, BadParameter, NeedsAccess
from vlmend.methods.safety.vlguard import QUESTION, REFUSALS, VLGuard, rows_of, tuned
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget, full_digest, hook_count, tiny_vlm
from vlmend.training.batches import Row, reply_batch
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


def of_twin(target: VLM, twin: Any) -> VLM:
    """The twin as a model of its own."""
    return replace(target, model=twin, anatomy=find_anatomy(twin))


def test_the_mend_gives_the_logits_of_the_trained_peft_model(tiny: VLM) -> None:
    twin = tuned(QUICK, tiny, rows_of(tiny, DATA, "post_hoc", 4, 0), 0)
    mend = QUICK.made(tiny, DATA, 0, twin.edits, {})
    mended = tiny.with_mend(mend).logits(BATCH)
    torch.testing.assert_close(mended, of_twin(tiny, twin.model).logits(BATCH), atol=1e-5, rtol=0)
    assert (mended - tiny.logits(BATCH)).abs().max() > 1e-3


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
    QUICK.fit(target, DATA, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
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
    inputs, labels = reply_batch(tiny.reader, rows)

    def loss(model: Any) -> float:
        with torch.no_grad():
            logits = model(**inputs, logits_to_keep=labels.shape[1] + 1).logits
        return float(reply_loss(logits[:, :-1], labels))

    twin = tuned(VLGuard(steps=12, batch=4, rate=1e-2), tiny, rows_of(tiny, DATA, "post_hoc", 4, 0), 0)
    assert loss(twin.model) < loss(tiny.model) - 0.5


def test_the_same_seed_gives_the_same_mend_and_another_seed_another(tiny: VLM) -> None:
    first, again, other = (QUICK.fit(tiny, DATA, seed=seed).digest for seed in (0, 0, 1))
    assert first == again != other


def test_the_mends_are_those_of_before_the_training_kit(tiny: VLM) -> None:
    """Sums that the commit before it gave, whose adapters were the same bit for bit on one machine."""
    first, *_, last = VLGuard(steps=5, batch=3, rate=1e-2).fit(tiny, DATA, seed=3).edits
    assert isinstance(first, LoadAdapter)
    assert isinstance(last, LoadAdapter)
    assert float(first.up.abs().sum()) == pytest.approx(8.642, abs=0.01)
    assert float(last.down.abs().sum()) == pytest.approx(31.3845, abs=0.01)


def test_a_target_without_weights_is_refused() -> None:
    with pytest.raises(NeedsAccess, match="needs the weights"):
        VLGuard().fit(ScriptedTarget(lambda c, mended: ""), DATA, seed=0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"rank": 0}, {"most": 1}, {"rate": 0.0}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any], tiny: VLM) -> None:
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        VLGuard(**wrong).fit(tiny, DATA, seed=0)


@pytest.mark.parametrize("label", ["harmful", "benign"])
def test_both_labels_are_needed(label: str, tiny: VLM) -> None:
    with pytest.raises(BadData, match="to fit on"):
        QUICK.fit(tiny, Dataset("one", DATA.labelled(label)), seed=0)  # type: ignore[arg-type]
