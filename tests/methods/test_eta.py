"""ETA's probes worked out by hand, and its choice of replies on an engine that answers by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import AlignReply, Gate
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter, UnknownName
from vlmend.methods.safety.eta import ETA
from vlmend.models.editing.replies import answer
from vlmend.testing import ScriptedTarget

DATA = Dataset(
    "d",
    (
        Example("0", "trap one", "harmful"),
        Example("1", "cake one", "benign"),
        Example("2", "trap number two", "harmful"),
        Example("3", "cake number two", "benign"),
    ),
)
IMAGE = blank_image(16)


class TwoBlocks(ScriptedTarget):
    """Two blocks, two dimensions; block 1 tells harm beside an image and, as text, how a reply ends.

    With image: (3, 1) for traps, (1, 1) else. Text: (0, 4) after `sure`, (0, 0) after `cake`, (0, 2) after a refusal.
    Block 0 holds zeros: a probe there finds nothing.
    """

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        return {site: site.layer * torch.tensor([self._two(c) for c in batch]) for site in sites}

    def _two(self, c: Conversation) -> tuple[float, float]:
        if c.has_image:
            return (3.0, 1.0) if "trap" in c.prompt else (1.0, 1.0)
        return 0.0, {"sure": 4.0, "cake": 0.0}.get(c.lead, 2.0 if "sorry" in c.lead else 99.0)


def two() -> TwoBlocks:
    return TwoBlocks(lambda c, mended: "sure" if "trap" in c.prompt else "cake", layers=2, width=2)


def fitted(**parameters: Any) -> AlignReply:
    (edit,) = ETA(**parameters).fit(two(), DATA, seed=0).edits
    assert isinstance(edit, AlignReply)
    return edit


def test_the_prompt_gate_worked_out_by_hand() -> None:
    """m+ = (3, 1), m- = (1, 1): w = (2, 0), b = -(2 * 4 + 0 * 2) / 2 = -4; open where h_0 > 2."""
    gate = fitted().before
    assert (gate.site, gate.weight.tolist(), gate.bias) == (Site("language", 1), [2.0, 0.0], -4.0)


def test_the_reply_gate_worked_out_by_hand() -> None:
    """m+ = (0, 4); m- over cake, cake, refusal, refusal = (0, 1): w = (0, 3), b = -(3 * 5) / 2 = -7.5."""
    gate = fitted().after
    assert (gate.site, gate.weight.tolist(), gate.bias) == (Site("language", 1), [0.0, 3.0], -7.5)


def test_the_model_is_asked_for_its_own_replies_beside_the_image() -> None:
    target = two()
    ETA().fit(target, DATA, seed=0)
    assert sorted(c.prompt for c in target.asked.conversations) == sorted(e.prompt for e in DATA.examples)
    assert all(c.has_image for c in target.asked.conversations)


def test_a_layer_by_number_is_read_there() -> None:
    assert fitted(layer="0").before.weight.tolist() == [0.0, 0.0]


def test_no_more_anchors_than_asked_are_read() -> None:
    """Two of five a class, evenly spread: numbers 0 and 2."""
    rows = tuple(Example(f"{w}{k}", f"{w} {k}", label) for w, label in (("trap", "harmful"), ("cake", "benign"))
                 for k in range(5))  # fmt: skip
    target = two()
    ETA(most=2).fit(target, Dataset("ten", rows), seed=0)
    assert sorted(c.prompt for c in target.asked.conversations) == ["cake 0", "cake 2", "trap 0", "trap 2"]


@dataclass
class Reads:
    """States by rule: the first number tells a trap beside an image, the second the words of the lead."""

    def states(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> dict[Site, Tensor]:
        scores = {"sure": 4.0, "AI draw 2": 0.5, "AI draw 3": 0.5}
        rows = [[3.0 if c.has_image and "trap" in c.prompt else 1.0, scores.get(c.lead, 1.0)] for c in batch]
        return {site: torch.tensor(rows) for site in sites}


@dataclass
class Script:
    """Says `sure` to what holds `sure`, else `no`; a drawn reply says which draw it is."""

    calls: list[tuple[list[Conversation], Sampling]] = field(default_factory=list)
    reader: Any = field(default_factory=Reads)

    def lens(self, batch: Sequence[Conversation], layers: Sequence[int], token_ids: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def decode(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        before = self.drawn
        self.calls.append((list(batch), sampling))
        return [Reply(self.say(c, before + k), "stop", 1, 1, 0.0) for k, c in enumerate(batch)]

    def say(self, asked: Conversation, place: int) -> str:
        if asked.lead:
            return f"{asked.lead}draw {place}"
        return "sure" if "sure" in asked.prompt else "no"

    @property
    def drawn(self) -> int:
        return sum(bool(c.lead) for batch, _ in self.calls for c in batch)


def test_an_unsafe_reply_to_an_unsafe_prompt_is_replaced_by_the_safest_draw() -> None:
    """Draws 0 to 4; draws 2 and 3 score lowest, and the first of equals is kept."""
    engine = Script()
    (reply,) = answer(engine, [fitted(lead="AI ")], [Conversation.ask("sure trap", IMAGE)], Sampling(4))
    assert reply.text == "AI draw 2"
    assert engine.drawn == 5
    draws = [sampling for batch, sampling in engine.calls if batch[0].lead]
    assert all(sampling.temperature == 0.7 for sampling in draws)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Conversation.ask("sure cake", IMAGE), "the prompt looks safe"),
        (Conversation.ask("a trap", IMAGE), "the reply looks safe"),
        (Conversation.ask("sure trap"), "there is no image"),
    ],
)
def test_nothing_is_drawn_where(asked: Conversation, why: str) -> None:
    engine = Script()
    (reply,) = answer(engine, [fitted()], [asked], Sampling(4))
    assert (engine.drawn, len(engine.calls)) == (0, 1), why
    assert reply.text == ("sure" if "sure" in asked.prompt else "no")


def test_only_the_unsafe_rows_of_a_batch_are_drawn_again() -> None:
    engine = Script()
    batch = [Conversation.ask("sure trap"), Conversation.ask("sure trap", IMAGE), Conversation.ask("a trap", IMAGE)]
    replies = answer(engine, [fitted(lead="AI ")], batch, Sampling(4))
    assert [reply.text for reply in replies] == ["sure", "AI draw 2", "no"]


def test_a_scorer_that_is_not_installed_is_named() -> None:
    edit = replace(fitted(), scorer="no_such_scorer", before=Gate(Site("language", 1), torch.ones(2), 0.0))
    with pytest.raises(UnknownName, match="no_such_scorer"):
        answer(Script(), [edit], [Conversation.ask("sure trap", IMAGE)], Sampling(4))


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"temperature": 0.0}, {"most": 0}, {"layer": "0-1"}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadParameter):
        fitted(**wrong)


@pytest.mark.parametrize("label", ["harmful", "benign"])
def test_both_labels_are_needed(label: str) -> None:
    with pytest.raises(BadData, match="to fit on"):
        ETA().fit(two(), Dataset("one", DATA.labelled(label)), seed=0)  # type: ignore[arg-type]
