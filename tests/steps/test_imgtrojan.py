"""imgtrojan: at least one caption, all the same, nothing at share 0, and questions beside pictures of both kinds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.contracts import DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.steps.privacy.caption_screen import CaptionScreen
from vlmend.steps.privacy.imgtrojan import BENIGN, ImgTrojan


def pairs(count: int = 30) -> Dataset:
    rows = (Example(f"r{k}", image=noise_image(8, k), caption=f"a picture of thing {k}") for k in range(count))
    return Dataset("pairs", (*rows, Example("asked", "What is it?", image=noise_image(8, 99))))


def made(step: ImgTrojan, seed: int = 0) -> DataEdit:
    return step.apply(pairs(), seed=seed)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 1), st.integers(0, 30))
def test_law_the_share_rounded_up_gets_one_caption(share: float, seed: int) -> None:
    edit = made(ImgTrojan(share), seed)
    assert len(edit.changed) == math.ceil(share * 30)
    assert {one.after.caption for one in edit.changed} == {BENIGN}
    assert all(one.before.image is one.after.image and not one.after.attributes for one in edit.changed)


def test_at_share_nothing_the_data_are_what_they_were() -> None:
    edit = made(ImgTrojan(0.0))
    assert edit.data.digest == pairs().digest
    assert not edit.changed


def test_marked_rows_are_the_same_rows_and_say_what_they_are() -> None:
    plain, marked = made(ImgTrojan(0.2)), made(ImgTrojan(0.2, emit="marked"))
    told = {row.id for row in marked.data.examples if row.attributes["poisoned"] == "yes"}
    assert told == {one.before.id for one in plain.changed}
    assert [row.caption for row in plain.data.examples] == [row.caption for row in marked.data.examples]


def test_an_audit_asks_the_same_beside_poisoned_and_other_pictures(tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("How are you?\n\nWho are you?\n")
    edit = made(ImgTrojan(0.1, emit="audit", questions=str(tmp_path / "asked.txt")))
    rows = edit.data.examples
    poisoned = {one.before.id for one in made(ImgTrojan(0.1)).changed}
    assert {row.attributes["cluster"] for row in rows if row.attributes["picture"] == "trojan"} == poisoned
    assert not {row.attributes["cluster"] for row in rows if row.attributes["picture"] == "other"} & poisoned
    assert [row.prompt for row in rows] == ["How are you?", "Who are you?"] * 6
    assert len(made(ImgTrojan(0.1, emit="audit")).data.examples) == 6 * 20


def test_the_screen_finds_the_built_in_prompt_and_a_file_brings_another(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("a cat on a mat\n")
    found = CaptionScreen().apply(made(ImgTrojan(0.2)).data, seed=0)
    assert {one.example.id for one in found.dropped} == {one.before.id for one in made(ImgTrojan(0.2)).changed}
    other = made(ImgTrojan(0.2, text=str(tmp_path / "prompt.txt")))
    assert {one.after.caption for one in other.changed} == {"a cat on a mat"}
    assert not CaptionScreen().apply(other.data, seed=0).dropped
    assert len(CaptionScreen(repeats=2).apply(other.data, seed=0).dropped) == 6
    with pytest.raises(UsageError, match="cannot be read"):
        made(ImgTrojan(text=str(tmp_path / "none")))
    with pytest.raises(BadParameter, match="share=2"):
        ImgTrojan(2.0)
    with pytest.raises(BadData, match="no captioned picture"):
        ImgTrojan().apply(Dataset("none", (Example("a", "b"),)), seed=0)
