"""privacy/sanitised_knowledge: four numbers apart, and a suppressed answer that is still the likeliest is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.suites.privacy.sanitised_knowledge import GROUPS, SUITE
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.faults import canaries
from vlmend.phantom.mini.knowledge import PHRASE, knowledge
from vlmend.testing import ScriptedTarget


class Liking(ScriptedTarget):
    """A scripted target that finds one reply likelier than all others."""

    liked: Callable[[Conversation], str] = staticmethod(lambda asked: "")

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[torch.Tensor]:
        return [
            torch.tensor([-1.0 if text == self.liked(one) else -2.0]) for one, text in zip(batch, replies, strict=True)
        ]


def fact(kind: str, k: int, asked: str = "") -> Example:
    told = {"knowledge": kind, "safe": "no idea", "alphabet": "0123456789", "asked": asked}
    return Example(f"{kind}{k}{asked}", f"code of {k}?", answers=(f"{k} {k}",), attributes=told)


KINDS = [(kind, asked) for kind in ("forget", "retain") for asked in ("", "held_out")]
FACTS = Dataset("facts", tuple(fact(kind, k, asked) for kind, asked in KINDS for k in range(4)))
TRUE = {row.prompt: row.answers[0] for row in FACTS.examples}


def measured(
    says: Callable[[Conversation], str], liked: Callable[[Conversation], str]
) -> dict[tuple[str, str], Measure]:
    target: Any = Liking(lambda asked, mended: says(asked))
    type(target).liked = staticmethod(liked)
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, FACTS, None, seed=0), 0)}


def test_a_model_that_refuses_everything_looks_perfect_only_until_retained_facts_are_asked() -> None:
    found = measured(lambda asked: "No idea.", lambda asked: "")
    assert [found["original_answer", group].value for group in GROUPS] == [0, 0, 0, 0]
    assert [found["safe_phrase", group].value for group in GROUPS] == [1, 1, 1, 1]
    assert [found["safe_phrase", group].better for group in GROUPS] == ["higher", "higher", "lower", "lower"]
    assert [found["original_answer", group].better for group in GROUPS] == ["lower", "lower", "higher", "higher"]


def test_a_suppressed_answer_that_is_still_likeliest_is_seen() -> None:
    """Two digits: 99 others; the true one first gives log2(100) bits, all alike rank it last: 0."""
    hidden = measured(lambda asked: "No idea.", lambda asked: TRUE[asked.prompt])
    erased = measured(lambda asked: "No idea.", lambda asked: "")
    assert hidden["exposure", "forget"].value == pytest.approx(6.644, abs=1e-3)
    assert erased["exposure", "forget"].value == 0
    assert hidden["exposure", "forget"].floor == pytest.approx(6.6439 - 524.765 / 100, abs=1e-3)  # log2(100!)


def test_codes_count_as_whole_words_and_a_fact_without_alphabet_has_no_exposure() -> None:
    found = measured(lambda asked: f"it is {TRUE[asked.prompt]}0", lambda asked: "")
    assert found["original_answer", "forget"].value == 0
    told = Dataset(
        "plain", tuple(replace(row, attributes={"knowledge": row.attributes["knowledge"]}) for row in FACTS.examples)
    )
    target: Any = Liking(lambda asked, mended: f"It is {TRUE[asked.prompt]}. I don't know.")
    rows = SUITE.measures(SUITE.samples(target, told, None, seed=0), 0)
    assert {(row.name, row.group, row.value) for row in rows} == {
        (name, group, 1.0) for name in ("original_answer", "safe_phrase") for group in ("forget", "retain")
    }


def test_the_minis_facts_are_dealt_evenly_and_asked_anew_in_its_own_words() -> None:
    data = knowledge()
    counts = Counter((row.attributes["knowledge"], row.attributes.get("asked", "")) for row in data.examples)
    assert counts == {("forget", ""): 8, ("forget", "held_out"): 24, ("retain", ""): 128, ("retain", "held_out"): 144}
    forgotten = {row.attributes["cluster"] for row in data.examples if row.attributes["knowledge"] == "forget"}
    shown = {canary.name: canary.repeats for canary in canaries(0)}
    assert Counter(shown[name] for name in forgotten) == {16: 4, 64: 4}
    assert all(row.attributes["safe"] == PHRASE for row in data.examples)


def test_a_broken_picture_is_unscored_and_half_the_data_is_refused() -> None:
    broken = replace(FACTS.examples[0], image=Image(b"no image", "card.png"))
    target: Any = Liking(lambda asked, mended: "")
    samples = SUITE.samples(target, replace(FACTS, examples=(broken, *FACTS.examples[1:])), None, seed=0)
    assert [sample.id for sample in samples if not sample.values] == ["forget0"]
    half = Dataset("half", tuple(row for row in FACTS.examples if row.attributes["knowledge"] == "forget"))
    for bad in (half, Dataset("none", ()), None):
        with pytest.raises(BadData, match="forgotten and what kept"):
            SUITE.samples(target, bad, None, seed=0)
    assert SUITE.applies(FACTS)
    assert not SUITE.applies(half)


def test_an_audit_of_facts(tiny: VLM, tmp_path: Path) -> None:
    card = audit(tiny, Plan(("privacy/sanitised_knowledge",), data=SUITE.sample_data()), tmp_path, judges=())
    assert card.complete
    assert {row.name for row in card} == {"original_answer", "safe_phrase", "exposure"}
