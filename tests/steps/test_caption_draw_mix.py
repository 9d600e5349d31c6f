"""caption_draw_mix: so many drawn rows as asked for, each told from what; nothing from a test, nothing copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.pictures.galleries import some_objects
from vlmend.pictures.renderer import Renderer
from vlmend.steps.robustness import caption_draw_mix
from vlmend.steps.robustness.caption_draw_mix import CaptionDrawMix

FEW = some_objects()


def test_no_ratio_is_the_data_byte_for_byte_and_opens_no_model() -> None:
    edit = CaptionDrawMix(ratio=0, model="no such model", judge="nor this").apply(FEW, seed=0)
    assert edit.data is FEW
    assert edit.added == ()


@pytest.mark.parametrize(("ratio", "drawn"), [(0.2, 2), (0.5, 8), (0.75, 24)])
def test_the_ratio_is_the_share_of_drawn_rows_among_all(ratio: float, drawn: int) -> None:
    edit = CaptionDrawMix(ratio=ratio, hamming=-1).apply(FEW, seed=0)
    assert len(edit.added) == drawn
    assert drawn / len(edit.data.examples) == ratio
    assert edit.data.examples[:8] == FEW.examples


def test_every_drawn_row_says_what_drew_it_from_which_row_with_what() -> None:
    of = {row.id: row for row in FEW.examples}
    for row in (one.example for one in CaptionDrawMix(shift="style").apply(FEW, seed=3).added):
        told = row.attributes
        source = of[told["drawn_from"]]
        assert told["synthetic"] == "renderer (style)"
        assert told["drawn_as"] == source.answers[0]
        assert row.answers == source.answers
        assert row.image == Renderer("style").draw([told["drawn_as"]], [int(told["drawn_with"])])[0]


def test_a_prompt_is_class_and_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def draw(self: Renderer, asked: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        prompts.extend(asked)
        return [None] * len(asked)

    monkeypatch.setattr(Renderer, "draw", draw)
    picture = FEW.examples[0].image
    rows = (
        Example("a", image=picture, answers=("cat",), caption="asleep on a wall"),
        Example("b", image=picture, caption="a dog"), Example("c", image=picture, answers=("owl",)),
    )  # fmt: skip
    edit = CaptionDrawMix(tries=1, hamming=-1).apply(Dataset("set", rows), seed=0)
    assert sorted(prompts) == ["a dog", "cat, asleep on a wall", "owl"]
    assert edit.data.examples == rows
    assert edit.data.notes == ("0 of 3 pictures were kept: a share of 0.00.",)
    assert edit.tables["drawn pictures"][0]["not drawn"] == 3


def test_nothing_is_drawn_from_rows_to_test_on() -> None:
    with pytest.raises(UsageError, match="is for testing only, so nothing is drawn from it"):
        CaptionDrawMix().apply(replace(FEW, test_only=True), seed=0)
    rows = tuple(replace(row, attributes={"split": "train" if row.id == "3" else "test"}) for row in FEW.examples)
    edit = CaptionDrawMix(hamming=-1).apply(replace(FEW, examples=rows), seed=0)
    assert {one.example.attributes["drawn_from"] for one in edit.added} == {"3"}
    with pytest.raises(BadData, match="a-few-objects has no row to draw from"):
        CaptionDrawMix().apply(replace(FEW, examples=tuple(replace(row, answers=()) for row in FEW.examples)), seed=0)


def test_copies_of_pictures_that_are_there_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that learnt its training pictures by heart: planted, and its clean twin, which draws views of its own."""
    pytest.importorskip("imagehash", reason="pip install 'vlmend[data]'")
    clean = CaptionDrawMix().apply(FEW, seed=0)
    assert len(clean.added) == 8
    by_name = {row.answers[0]: row.image for row in FEW.examples}
    monkeypatch.setattr(Renderer, "draw", lambda self, asked, seeds: [by_name[name] for name in asked])
    edit = CaptionDrawMix(tries=2).apply(FEW, seed=0)
    assert edit.added == ()
    assert edit.tables["drawn pictures"][0]["near copy"] == 16
    assert len(CaptionDrawMix(hamming=-1).apply(FEW, seed=0).added) == 8


def test_what_the_encoder_does_not_take_for_its_class_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that sees the first name in every picture keeps drawings of that name alone."""
    names = sorted({row.answers[0] for row in FEW.examples})
    first = torch.arange(len(names), 0, -1.0)
    encoder = SimpleNamespace(logits=lambda images, texts: first.repeat(len(images), 1))
    monkeypatch.setattr(caption_draw_mix, "opened", lambda *asked: encoder)
    monkeypatch.setattr(caption_draw_mix, "DualTarget", SimpleNamespace)
    edit = CaptionDrawMix(judge="any", hamming=-1, tries=2).apply(FEW, seed=0)
    assert {one.example.answers for one in edit.added} == {(names[0],)}
    (told,) = edit.tables["drawn pictures"]
    assert told["not taken for its class"] == 2 * (8 - len(edit.added))
    every: Any = CaptionDrawMix(judge="any", hamming=-1, top=len(names))
    assert len(every.apply(FEW, seed=0).added) == 8


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="works on a text-to-image pipeline, and phantom-clip is a dual encoder"):
        CaptionDrawMix(model="phantom-clip").apply(FEW, seed=0)


def test_what_is_out_of_range_is_told_together() -> None:
    with pytest.raises(
        BadParameter, match=r"ratio=1: 0 or more and below 1; top=0: 1 or more; .*for the renderer alone"
    ):
        CaptionDrawMix(ratio=1, top=0, model="x", shift="blur")


def test_the_renderer_draws_what_it_knows_by_seed() -> None:
    first, again, other, unknown = Renderer().draw(["hammer", "hammer, of wood", "hammer", "a hammer"], [1, 1, 2, 1])
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.digest == again.digest != other.digest
    assert unknown is None
