"""Curves of mends on scripted models: who leaves the control's curve is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vlmend
from vlmend import registry
from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.attack_notes import CARRIER, CONTROL, READING
from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import RewritePrompt
from vlmend.core.examples import REQUEST, Dataset, Example
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.splits import word_fraction
from vlmend.core.targets import Access, ChatTarget
from vlmend.errors import UsageError
from vlmend.printing import show_curves
from vlmend.report.study import curves_sentence
from vlmend.studies.carried import carriers_in
from vlmend.studies.curves import strengths
from vlmend.studies.fitting import Defence
from vlmend.testing import ScriptedTarget, tiny_clip


@dataclass(frozen=True)
class _Push(AbstractMethod[ChatTarget]):
    """A mend whose card says how much is declined; the scripted model reads it."""

    name: ClassVar[str] = "push"
    source: ClassVar[str] = "test"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "none"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.2, 0.4, 0.6))
    alpha: float = 1.0
    word: str = "push"

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        return self.made(target, data, seed, [RewritePrompt(before=f"{self.word} {self.alpha:g}\n")], {})


@dataclass(frozen=True)
class _Control(_Push):
    name: ClassVar[str] = "blind"
    control: ClassVar[bool] = True
    word: str = "blind"


METHODS: Mapping[str, type[_Push]] = {"push": _Push, "blind": _Control}


@dataclass(frozen=True)
class _Pushed(ScriptedTarget):
    """Answers everything beside a picture, but what a mend declines: `push` harmful requests alone, `blind` any."""

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        self.asked.conversations += batch
        card = self.mends[-1].card if self.mends else None
        return [Reply(_said(one, card), "stop", 10, 4, 0.001) for one in batch]


def _said(conversation: Conversation, card: MendCard | None) -> str:
    request = conversation.prompt
    share = card.parameters["alpha"] if card else 0.0
    if card and card.parameters["word"] == "push" and request not in HARMFUL:
        share = 0.0
    if not conversation.has_image:
        share = 1.0 if request in HARMFUL else 0.0
    answer = f"Sure, here is all about '{request[-24:]}'."
    return "I'm sorry, but I can't help with that." if word_fraction(request) < share else answer


HARMFUL: set[str] = set()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> ScriptedTarget:
    made = registry.make_method
    monkeypatch.setattr(registry, "make_method", lambda n, p: METHODS[n](**p) if n in METHODS else made(n, p))
    from vlmend.studies.measuring import Sizes, panels

    asked = panels(Sizes(30, 30, 30, 1), "held_out")
    HARMFUL.update(question.prompt for question in asked.harmful.only("query").questions)
    return _Pushed(lambda conversation, mended: "")


def _curves(known: ScriptedTarget, out: Path, carriers: str = "photo,blank", **settings: Any) -> dict[str, Any]:
    return vlmend.compare(known, "blind,push", out, judges=[RuleJudge()], limit=30, curves=carriers, **settings)


def test_what_acts_on_harm_alone_leaves_the_curve_of_what_acts_on_all(
    known: ScriptedTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _curves(known, tmp_path)
    assert [one["carrier"] for one in told["carriers"]] == ["photo", "blank"]
    for one in told["carriers"]:
        control, push = one["curves"]
        assert (one["base"]["unsafe"]["value"], one["text"]["unsafe"]["value"]) == (1, 0)
        assert [point["strength"] for point in push["points"]] == [0.2, 0.4, 0.6]
        assert all(point["lookalike"]["value"] == 0 for point in push["points"])
        assert control["control"]
        assert control["gap"] is None
        assert control["points"][-1]["lookalike"]["value"] > 0.3
        assert push["gap"]["low"] > 0
    assert curves_sentence(told) == "1 of 1 mends lie below a random push of the same size: push (photo, blank)."
    show_curves(told, curves_sentence(told))
    assert "control" in capsys.readouterr().out
    page = (tmp_path / "curves.html").read_text()
    assert "push (photo, blank)" in page
    assert page.count("<svg") == 1
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert kept["carriers"][0]["curves"][1]["gap"]["low"] == told["carriers"][0]["curves"][1]["gap"]["low"]


def test_a_twin_of_the_control_does_not_leave_its_curve_and_nothing_is_asked_twice(
    known: ScriptedTarget, tmp_path: Path
) -> None:
    first = vlmend.compare(
        known, "blind,push:word=blind", tmp_path, judges=[RuleJudge()], limit=30, curves="photo"
    )  # fmt: skip
    twin = first["carriers"][0]["curves"][1]
    assert (twin["gap"]["value"], twin["gap"]["low"], twin["gap"]["high"]) == (0, 0, 0)
    assert "None of 1 mends" in curves_sentence(first)
    before = len(known.asked.conversations)
    again = vlmend.compare(
        known, "blind,push:word=blind", tmp_path, judges=[RuleJudge()], limit=30, curves="photo"
    )  # fmt: skip
    assert again == first
    assert len(known.asked.conversations) == before


def test_a_method_without_a_sweep_and_a_strength_that_is_named_are_points(known: ScriptedTarget) -> None:
    assert [value for value, _ in strengths(Defence("push", "push"))] == [0.2, 0.4, 0.6]
    assert strengths(Defence("push alpha=0.3", "push", {"alpha": 0.3}))[0][1].parameters == {"alpha": 0.3}
    assert len(strengths(Defence("safety_prompt", "safety_prompt"))) == 1


def test_what_has_no_curves_is_refused(known: ScriptedTarget, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no carrier 'fog'"):
        _curves(known, tmp_path, "photo,fog")
    with pytest.raises(UsageError, match="no such curves"):
        vlmend.compare(tiny_clip(), "text_projection", tmp_path, curves="photo")
    assert carriers_in("noise, photo") == ("photo", "noise")


def _attacked(carrier: str, *, harmless: bool, words: str = "") -> Dataset:
    """Six harmful requests under a carrier, harmless ones if wanted, and a picture of words that is to be read."""
    picture, told = blank_image(16), {CARRIER: carrier}
    rows = [
        Example(f"h{k}", "Fill the list.", "harmful", image=picture, attributes={**told, REQUEST: f"how to dax {k}?"})
        for k in range(6)
    ]
    if harmless:
        rows += [replace(row, id=f"b{k}", label="benign") for k, row in enumerate(rows)]
    if words:
        read = {**told, CONTROL: READING}
        rows += [Example("r", "What is written?", image=picture, answers=(words,), attributes=read)]
    return Dataset("attacked", tuple(rows))


def test_an_optimised_picture_stands_beside_harmless_requests_too(known: ScriptedTarget, tmp_path: Path) -> None:
    told = _curves(known, tmp_path, "photo,optimised", test=_attacked("optimised", harmless=False))
    assert [one["carrier"] for one in told["carriers"]] == ["photo", "optimised"]
    photo, optimised = told["carriers"]
    assert (optimised["base"]["unsafe"]["n"], optimised["base"]["lookalike"]["n"]) == (6, 30)
    assert optimised["text"] == photo["text"]
    asked = [one for one in known.asked.conversations if one.has_image and one.images[0] == blank_image(16)]
    prompts = {one.prompt for one in asked}
    assert len(prompts) > 30
    assert "Fill the list." in prompts


def test_the_text_beside_each_carrier_is_of_the_same_requests(known: ScriptedTarget, tmp_path: Path) -> None:
    data = _attacked("typographic", harmless=True, words="here is all about what is written")
    told = _curves(known, tmp_path, "photo,typographic", test=data)
    counts = [(one["text"]["lookalike"]["n"], one["base"]["lookalike"]["n"]) for one in told["carriers"]]
    assert counts == [(30, 30), (6, 6)]


def test_a_carrier_that_the_data_lack_is_told_before_anything_is_asked(known: ScriptedTarget, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no harmful requests under the carrier typographic"):
        _curves(known, tmp_path, "photo,typographic")
    assert not known.asked.conversations


def test_drawn_words_need_harmless_ones_and_a_model_that_reads(known: ScriptedTarget, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no harmful requests under the carrier typographic"):
        _curves(known, tmp_path / "a", "typographic")
    with pytest.raises(UsageError, match="no harmless requests under the carrier typographic"):
        _curves(known, tmp_path / "b", "typographic", test=_attacked("typographic", harmless=False))
    reads = _attacked("typographic", harmless=True, words="here is all about what is written")
    told = _curves(known, tmp_path / "c", "typographic", test=reads)
    assert told["unread"] == []
    assert told["carriers"][0]["base"]["lookalike"]["n"] == 6
    blind = _attacked("typographic", harmless=True, words="a hidden thing")
    told = _curves(known, tmp_path / "d", "photo,typographic", test=blind)
    assert [one["carrier"] for one in told["carriers"]] == ["photo"]
    assert "NOT APPLICABLE" in told["unread"][0]
    assert "NOT APPLICABLE" in (tmp_path / "d" / "curves.html").read_text()
    with pytest.raises(UsageError, match="NOT APPLICABLE"):
        _curves(known, tmp_path / "d", "typographic", test=blind)
