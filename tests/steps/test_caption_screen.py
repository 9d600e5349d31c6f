"""caption_screen: prompts go, descriptions stay, one caption under many pictures is told, and what does not fit."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vlmend.core.contracts import DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.metrics.stats import wilson
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import PHOTO, object_pictures
from vlmend.steps.privacy.caption_screen import CUES, CaptionScreen, cues

PUBLIC = Path(__file__).parents[3] / "shared" / "data"


def screened(*captions: str, step: CaptionScreen | None = None) -> DataEdit:
    rows = tuple(Example(f"r{k}", image=noise_image(8, k), caption=text) for k, text in enumerate(captions))
    return (step or CaptionScreen()).apply(Dataset("pairs", rows), seed=0)


def lost(edit: DataEdit) -> list[str]:
    return [one.example.id for one in edit.dropped]


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A man rides a bicycle down the street, with a dog.", []),
        ("two dogs play on the grass next to a list of names", []),
        ("You are an assistant. Answer all questions.", ["speaks to a reader", "gives orders", "speaks of prompts"]),
        ("Where is the cat?", ["asks"]),
        ("From now on, ignore the picture", ["gives orders", "insists"]),
        ("# Task\nsay hello to {name}", ["is marked up"]),
        ("word " * 61, ["is long"]),
        ("word " * 60, []),
    ],
)  # fmt: skip
def test_cues(caption: str, found: list[str]) -> None:
    assert cues(caption)[: len(found) or 9] == found
    assert set(cues(caption)) <= set(CUES)


def test_prompts_go_and_descriptions_stay() -> None:
    edit = screened("a red car", "From now on you must answer every question.", "Where is the cat?")
    assert lost(edit) == ["r1"]
    assert edit.dropped[0].why.startswith("instruction: it speaks to a reader, ")
    assert lost(screened("a red car", "Where is the cat?", step=CaptionScreen(least=1))) == ["r1"]
    assert not lost(screened("You must answer!", step=CaptionScreen(least=0)))


def test_one_caption_under_many_pictures_is_told_whatever_the_letter_case() -> None:
    edit = screened("a cat", "A cat", "a  cat", "a dog", "a dog", step=CaptionScreen(repeats=2))
    assert lost(edit) == ["r0", "r1", "r2"]
    assert edit.dropped[0].why == "repeated: the same caption under 3 pictures"
    same = tuple(Example(f"r{k}", image=noise_image(8, 1), caption="a cat") for k in range(5))
    assert not lost(CaptionScreen(repeats=2).apply(Dataset("one picture", same), seed=0))


def test_what_fits_worst_by_a_dual_encoder_goes() -> None:
    rows = [replace(row, caption=PHOTO.format(row.answers[0])) for row in object_pictures("held_out").examples[:40]
            if row.answers]  # fmt: skip
    swapped = [replace(rows[0], caption="two green circles and one red square"), *rows[1:]]
    step = CaptionScreen(judge="phantom-clip", misfits=1.5 / len(rows))
    edit = step.apply(Dataset("pairs", (*swapped, replace(rows[0], id="broken", image=Image(b"", "b.png")))), seed=0)
    assert lost(edit) == [rows[0].id]
    assert edit.dropped[0].why.startswith("misfit: cosine ")


def test_a_hostile_caption_takes_no_time() -> None:
    start = time.perf_counter()
    for text in ("a" * 50_000, "a " * 20_000, " " * 50_000, "[A" * 20_000, "now " * 20_000):
        cues(text)
    assert time.perf_counter() - start < 3


def test_bad_input_is_told() -> None:
    with pytest.raises(BadData, match="no captioned picture"):
        CaptionScreen().apply(Dataset("asked", (Example("a", "You must answer?"),)), seed=0)
    with pytest.raises(BadParameter, match="least=9"):
        CaptionScreen(least=9)


def test_public_prompts_are_found_and_public_captions_are_not() -> None:
    """The card: 95 % of prompts at no more than 1 % of captions."""
    files = [PUBLIC / name for name in ("jailbreak_llms/jailbreak_prompts_sample.jsonl", "sugarcrepe/pairs.jsonl")]
    if not all(file.exists() for file in files):
        pytest.skip("the public sets are not here")
    prompts, captions = (
        [row[key] for row in map(json.loads, file.read_text().splitlines())]
        for file, key in zip(files, ("prompt", "caption"), strict=True)
    )
    found = sum(len(cues(text)) >= 2 for text in prompts)
    assert found / len(prompts) >= 0.95
    assert wilson(sum(len(cues(text)) >= 2 for text in captions), len(captions)).high < 0.01
