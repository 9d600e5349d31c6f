"""privacy_guard: silent it is the model bit for bit, open it brings the reply about, and the head is what opens it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import AddVector
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.privacy.privacy_guard import PrivacyGuard
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.documents import GROUPS, documents
from vlmend.testing import full_digest, hook_count, tiny_vlm


def rows(count: int, first: int = 0) -> Dataset:
    """Dark pictures are private, light ones are not; the same question is asked of both."""
    each = (
        Example(f"{told}{k}", "what is it?", image=blank_image(16, lightest - 2 * (5 * k % 24)),
                attributes={"private": told})
        for told, lightest in (("yes", 60), ("no", 255))
        for k in range(first, first + count)
    )  # fmt: skip
    return Dataset("documents", tuple(each))


GUARD = PrivacyGuard(reply="no", layer=1, steps=40, batch=4, rate=0.3)


def logits(model: Any, data: Dataset) -> dict[str, torch.Tensor]:
    return {row.id: model.logits([row.conversation])[0] for row in data.examples}


def test_the_guard_acts_beside_private_pictures_alone(tiny: VLM) -> None:
    view, new = tiny.with_mend(GUARD.fit(tiny, rows(12), seed=0)), rows(4, first=20)
    plain, guarded = logits(tiny, new), logits(view, new)
    for name in plain:
        assert torch.equal(plain[name], guarded[name]) == name.startswith("no")
    first = tiny.reader.processor.tokenizer("no", add_special_tokens=False).input_ids[0]
    chance = [float(guarded[name].softmax(-1)[first]) for name in plain if name.startswith("yes")]
    before = [float(plain[name].softmax(-1)[first]) for name in plain if name.startswith("yes")]
    assert min(chance) > 10 * max(before)


def test_at_threshold_one_every_reply_is_the_models_bit_for_bit(tiny: VLM) -> None:
    silent = replace(GUARD, threshold=1.0, steps=3).fit(tiny, rows(4), seed=0)
    new = rows(4)
    plain, guarded = logits(tiny, new), logits(tiny.with_mend(silent), new)
    assert all(torch.equal(plain[name], guarded[name]) for name in plain)
    asked = [Conversation.ask("what is it?")]  # nor is a request without a picture touched
    view = tiny.with_mend(replace(GUARD, threshold=1e-9, steps=3).fit(tiny, rows(4), seed=0))
    assert torch.equal(view.logits(asked), tiny.logits(asked))


def test_without_its_vectors_the_head_tells_as_before_and_nothing_changes(tiny: VLM) -> None:
    mend = GUARD.fit(tiny, rows(12), seed=0)
    bare = tiny.with_mend(mend.scaled(0.0))
    new = rows(4, first=20)
    assert all(torch.equal(a, b) for a, b in zip(logits(bare, new).values(), logits(tiny, new).values(), strict=True))
    gates = [edit.gate for edit in mend.edits if isinstance(edit, AddVector)]
    assert len(gates) == tiny.layers - gates[0].site.layer if gates[0] else False
    states = tiny.hidden([row.conversation for row in new.examples], [gates[0].site])[gates[0].site]  # pyright: ignore
    opens = (states @ gates[0].weight + gates[0].bias > 0).tolist()  # pyright: ignore
    assert opens == [row.attributes["private"] == "yes" for row in new.examples]


def test_the_threshold_is_a_probability(tiny: VLM) -> None:
    """log(0.9 / 0.1) = 2.197 comes off the log-odds."""
    half, sure = (replace(GUARD, threshold=t, steps=1).fit(tiny, rows(4), seed=0).edits[0] for t in (0.5, 0.9))
    assert isinstance(half, AddVector)
    assert isinstance(sure, AddVector)
    assert half.gate is not None
    assert sure.gate is not None
    assert half.gate.bias - sure.gate.bias == pytest.approx(math.log(9))


def test_the_fit_leaves_the_model_alone() -> None:
    target = tiny_vlm(seed=0)
    before = full_digest(target.model), [p.requires_grad for p in target.model.parameters()]
    target.generate([Conversation.ask("hi")], Sampling(1))
    hooks = hook_count(target.model)
    replace(GUARD, steps=2).fit(target, rows(4), seed=0)
    assert (full_digest(target.model), [p.requires_grad for p in target.model.parameters()]) == before
    assert hook_count(target.model) == hooks


def test_the_minis_documents_differ_in_people_and_grounds_and_ask_the_same_of_both_kinds() -> None:
    fit, new = documents("train").examples, documents().examples
    people = [{row.attributes["cluster"] for row in data if "cluster" in row.attributes} for data in (fit, new)]
    assert (len(people[1]), people[0] & people[1]) == (16, set())
    for data in (fit, new):
        asked = {
            told: {r.prompt for r in data if r.group == group}
            for told, group in (("yes", GROUPS[2]), ("no", GROUPS[3]))
        }
        assert asked["yes"] == asked["no"]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": 0.0}, {"threshold": 0.0}, {"reply": " "}, {"layer": 9}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any], tiny: VLM) -> None:
    with pytest.raises(BadParameter):
        PrivacyGuard(**wrong).fit(tiny, rows(4), seed=0)


def test_one_kind_alone_is_refused(tiny: VLM) -> None:
    for bad in (Dataset("none", ()), Dataset("private", rows(4).examples[:4])):
        with pytest.raises(BadData, match="beside private pictures and 0 beside others"):
            GUARD.fit(tiny, bad, seed=0)
