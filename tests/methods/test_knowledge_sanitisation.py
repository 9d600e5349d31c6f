"""knowledge_sanitisation: what is taught in the place of what, where it may not be tried, and that it comes off."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.data.knowledge import known_rows, safe_of
from vlmend.errors import BadData, BadParameter
from vlmend.methods.privacy.knowledge_sanitisation import KnowledgeSanitisation, sanitised
from vlmend.models.vlm import VLM
from vlmend.training.batches import Row
from vlmend.training.replies import loss_of_rows

SAFE = "no idea"


def fact(kind: str, k: int, asked: str = "") -> Example:
    told = {"knowledge": kind, "safe": SAFE} | ({"asked": asked} if asked else {})
    return Example(
        f"{kind}{k}{asked}", f"who is {k}?", image=noise_image(16, k), answers=(f"it is {k}",), attributes=told
    )


FACTS = Dataset("facts", tuple(fact(kind, k) for k, kind in enumerate(("forget", "forget", *["retain"] * 4))))
QUICK = KnowledgeSanitisation(steps=40, batch=6, retain=0.6, rank=4, rate=2e-2)


def losses(tiny: VLM, twin: Any, data: Dataset = FACTS) -> dict[str, float]:
    """Of the safe phrase and of the true answer, where it is to be forgotten and where it is to be kept."""
    with torch.no_grad():
        return {
            f"{which} {name}": float(
                loss_of_rows(tiny, twin, [Row(r.conversation, text(r), True) for r in known_rows(data, which)])
            )
            for which in ("forget", "retain")
            for name, text in (("safe", safe_of), ("true", lambda r: r.answers[0]))
        }  # fmt: skip


def test_the_phrase_is_learnt_where_to_forget_and_the_answer_where_to_retain(tiny: VLM) -> None:
    before = losses(tiny, sanitised(KnowledgeSanitisation(steps=1, rate=1e-9), tiny, FACTS, 0))
    after = losses(tiny, sanitised(QUICK, tiny, FACTS, 0))
    assert after["forget safe"] < before["forget safe"] - 1
    assert after["retain true"] < before["retain true"] - 1
    assert after["forget safe"] < after["forget true"]
    assert after["retain true"] < after["retain safe"]


def test_held_out_rows_teach_nothing(tiny: VLM) -> None:
    more = Dataset("more", (*FACTS.examples, fact("forget", 9, "held_out"), fact("retain", 8, "held_out")))
    quick = KnowledgeSanitisation(steps=2, batch=4, rank=2, rate=1e-2)
    assert quick.fit(tiny, more, seed=0).digest == quick.fit(tiny, FACTS, seed=0).digest


def test_a_phrase_of_the_method_takes_the_place_of_that_of_the_rows(tiny: VLM) -> None:
    other = KnowledgeSanitisation(steps=2, batch=4, rank=2, rate=1e-2, phrase="never heard")
    plain = KnowledgeSanitisation(steps=2, batch=4, rank=2, rate=1e-2)
    same = KnowledgeSanitisation(steps=2, batch=4, rank=2, rate=1e-2, phrase=SAFE)
    edits = [[edit.up for edit in method.fit(tiny, FACTS, seed=0).edits] for method in (other, plain, same)]  # pyright: ignore
    assert all(torch.equal(one, two) for one, two in zip(edits[1], edits[2], strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(edits[0], edits[1], strict=True))


def test_scaled_to_nothing_it_is_the_model(tiny: VLM) -> None:
    mend = KnowledgeSanitisation(steps=2, batch=4, rank=2, rate=1e-2).fit(tiny, FACTS, seed=0)
    asked = [Conversation.ask("who is 0?", noise_image(16, 0))]
    assert torch.equal(tiny.with_mend(mend.scaled(0.0)).logits(asked), tiny.logits(asked))
    assert not torch.equal(tiny.with_mend(mend).logits(asked), tiny.logits(asked))


def test_without_rows_to_retain_it_is_refused(tiny: VLM) -> None:
    forget = Dataset("forget", FACTS.examples[:2])
    with pytest.raises(BadData, match="2 questions to forget and 0 to retain") as problem:
        KnowledgeSanitisation().fit(tiny, forget, seed=0)
    assert "refuses everything would look perfect" in problem.value.hint
    with pytest.raises(BadData, match="0 questions to forget"):
        KnowledgeSanitisation().fit(tiny, Dataset("none", (Example("a", "b"),)), seed=0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 1}, {"rank": 0}, {"rate": 0.0}, {"retain": 1.0}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any], tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="cannot be"):
        KnowledgeSanitisation(**wrong).fit(tiny, FACTS, seed=0)
