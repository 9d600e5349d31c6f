"""balanced_set: exact counts, a generator that draws men for women and what a judge makes of it, bleached sets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter
from vlmend.steps.fairness import balanced_set
from vlmend.steps.fairness.balanced_set import BalancedSet

SHADES = {"man": 50, "woman": 200, "": 120}
NAMES = ("farmer", "judge", "singer")


def professions(*names: str) -> Dataset:
    return Dataset("work", tuple(Example(name, answers=(name,)) for name in names or NAMES))


@dataclass
class Biased:
    """Draws plain pictures: red tells the profession, green the gender; in a share of women it draws a man."""

    slips: float = 0.0
    cannot: str = ""
    asked: list[str] = field(default_factory=list)
    name: str = "biased"

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        self.asked += prompts
        return [self._drawn(*pair) for pair in zip(prompts, seeds, strict=True)]

    def _drawn(self, prompt: str, seed: int) -> Image | None:
        words = prompt.removeprefix("a photo of a ").split()
        group = words[0] if words[0] in ("man", "woman") else ""
        if self.cannot and prompt.endswith(self.cannot):
            return None
        rng = random.Random(seed)
        if group == "woman" and rng.random() < self.slips:
            group = "man"
        colour = (40 + 70 * NAMES.index(words[-1]), SHADES[group], rng.randrange(256))
        return Image.from_pixels(PIL.Image.new("RGB", (8, 8), colour), prompt)


class Judge:
    """Reads those colours."""

    def logits(self, pictures: Sequence[Image], texts: Sequence[str]) -> Tensor:
        rows: list[list[float]] = []
        for picture in pictures:
            red, green, _ = picture.decode().getpixel((0, 0))  # type: ignore[misc]
            near = {name: -abs(red - 40 - 70 * k) for k, name in enumerate(NAMES)}
            near |= {group: -abs(green - shade) for group, shade in SHADES.items() if group}
            rows.append([float(near[text.removeprefix("a photo of a ")]) for text in texts])
        return torch.tensor(rows)


def drawn(monkeypatch: pytest.MonkeyPatch, maker: Biased, **parameters: Any) -> Any:
    monkeypatch.setattr(BalancedSet, "_maker", lambda self: maker)
    monkeypatch.setattr(balanced_set, "opened", lambda name, kind, step: Judge())
    monkeypatch.setattr(balanced_set, "DualTarget", object)
    return BalancedSet(**parameters).apply(professions(), seed=0)


def shown(rows: Sequence[Example]) -> Counter[tuple[str, str]]:
    """What pictures really show."""
    of = {shade: group for group, shade in SHADES.items()}
    pixels = [row.image.decode().getpixel((0, 0)) for row in rows if row.image]
    return Counter((NAMES[(red - 40) // 70], of[green]) for red, green, _ in pixels)  # type: ignore[misc]


def test_every_profession_has_as_many_of_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = drawn(monkeypatch, Biased(), count=4)
    made = [one.example for one in edit.added]
    assert shown(made) == {(name, group): 4 for name in NAMES for group in ("man", "woman")}
    assert {row.caption for row in made} == {f"a photo of a {name}" for name in NAMES}
    assert {row["pictures"] for row in edit.tables["manifest"]} == {4}
    assert not edit.data.notes


def test_a_generator_that_draws_men_for_women_is_caught_by_a_judge_and_not_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unjudged = drawn(monkeypatch, Biased(0.5), count=20)
    women = [one.example for one in unjudged.added if one.example.group == "woman"]
    assert 10 < sum(count for (_, group), count in shown(women).items() if group == "man") < 50
    edit = drawn(monkeypatch, Biased(0.5), count=20, judge="some", tries=8)
    made = [one.example for one in edit.added]
    assert all(row.group == group for row in made for (_, group) in shown([row]))
    assert all(shown(made)[name, "man"] == shown(made)[name, "woman"] > 15 for name in NAMES)
    assert edit.tables["drawn pictures"][0]["not taken for its group"] > 10


def test_a_class_that_comes_short_is_short_in_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = drawn(monkeypatch, Biased(cannot="woman judge"), count=3)
    counts = shown([one.example for one in edit.added])
    assert counts == {(name, group): 3 for name in ("farmer", "singer") for group in ("man", "woman")}
    assert any("1 classes have fewer than 3 pictures a group: judge" in note for note in edit.data.notes)
    assert edit.tables["drawn pictures"][0]["not drawn"] == 9


def test_a_bleached_set_names_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Biased()
    edit = drawn(monkeypatch, maker, count=2, groups="")
    assert set(maker.asked) == {f"a photo of a {name}" for name in NAMES}
    assert {one.example.group for one in edit.added} == {""}


def test_glyphs_are_drawn_without_a_model() -> None:
    data = professions("farmer", "judge")
    edit = BalancedSet(count=3).apply(data, seed=0)
    assert Counter((one.example.answers[0], one.example.group) for one in edit.added) == {
        (name, group): 3 for name in ("farmer", "judge") for group in ("man", "woman")
    }
    assert BalancedSet(count=3).apply(data, seed=0).data.digest == edit.data.digest
    assert BalancedSet(count=3).apply(data, seed=1).data.digest != edit.data.digest


def test_bad_input_is_named() -> None:
    for wrong in ({"groups": "man"}, {"groups": "man|man"}, {"count": 0}, {"tries": 0}, {"hamming": 40}):
        with pytest.raises(BadParameter, match="cannot be drawn so"):
            BalancedSet(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BadData, match="names no class to draw"):
        BalancedSet().apply(Dataset("text", (Example("a", "Hello?"),)), seed=0)
