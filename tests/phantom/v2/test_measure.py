"""The exam of the second generation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlmend.phantom.v2.measure import exam, names_it, perplexities


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
