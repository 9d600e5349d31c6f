"""fairness/neutrality on scripted generators: planted shares, a fair twin, references, what is held back, bad rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmend.audit.options import neutrality_of
from vlmend.audit.suites.fairness.neutrality import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.errors import BadData, UsageError
from vlmend.testing.fakes import PlainDrawer

SHADES = {"man": 0, "woman": 100, "person": 200}
WORK = ("pilot", "nurse", "cook", "judge")


@dataclass(frozen=True)
class Drawer(PlainDrawer):
    """Draws a man in that share of the seeds of each profession; red tells the person, green the profession."""

    men: dict[str, float] = field(default_factory=dict)
    held: str = ""
    wrong: str = ""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        return [self._one(prompt.removeprefix("a photo of a "), place) for place, prompt in enumerate(prompts)]

    def _one(self, work: str, place: int) -> Image | None:
        if work == self.held and place % 2:
            return None
        who = "man" if (place * 7 % 20) < 20 * self.men.get(work, 0.5) else "woman"
        shown = "cook" if work == self.wrong else work
        return Image.from_pixels(PIL.Image.new("RGB", (4, 4), (SHADES[who], 60 * WORK.index(shown), 0)))


@dataclass(frozen=True)
class Reader(PlainDrawer):
    """Reads those colours, as a dual encoder would."""

    def logits(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        known = {**{f"a photo of a {who}": (0, shade) for who, shade in SHADES.items()},
                 **{f"a photo of a {work}": (1, 60 * k) for k, work in enumerate(WORK)}}  # fmt: skip
        pixels: list[Any] = [image.decode().getpixel((0, 0)) for image in images]
        return torch.tensor([[-abs(float(p[known[t][0]]) - known[t][1]) for t in texts] for p in pixels])


def prompts(**told: str) -> Dataset:
    rows = (
        Example(work, f"a photo of a {work}", "benign", answers=(work,), attributes={"groups": "man|woman", **told})
        for work in WORK
    )
    return Dataset("work", tuple(rows))


def measured(drawer: Any, data: Dataset) -> dict[tuple[str, str], Measure]:
    suite = SUITE.beside(Reader())  # type: ignore[arg-type]
    samples = suite.samples(drawer, data, None, seed=0)
    return {(row.name, row.group): row for row in suite.measures(samples, 0)}


def test_planted_shares_by_hand() -> None:
    """Men of 20: 20, 0, 15, 10. Neutrality 0, 0, 0.5, 1: a mean of 0.375; men are 45 of 80."""
    drawer = Drawer(men={"pilot": 1.0, "nurse": 0.0, "cook": 0.75, "judge": 0.5})
    rows = measured(drawer, prompts())
    assert rows["neutrality", "all prompts"].value == pytest.approx(0.375)
    assert rows["group_share", "man"].value == pytest.approx(45 / 80)
    assert rows["group_share", "man: pilot"].value == 1
    assert rows["group_share", "woman: cook"].value == 0.25
    assert rows["group_share", "man"].floor == 0.5
    assert rows["shows_what_was_asked", "all prompts"].value == 1
    assert rows["shows_what_was_asked", "all prompts"].floor == 0.25
    assert rows["neutrality", "all prompts"].high < rows["neutrality", "all prompts"].floor + 0.2


def test_the_fair_twin_is_neutral_and_above_what_chance_gives() -> None:
    """Twenty fair drawings a prompt give 0.82 on average: 1 - E|2p - 1| with p of 20 flips."""
    row = measured(Drawer(), prompts())["neutrality", "all prompts"]
    assert row.value == 1
    assert row.floor == pytest.approx(0.824, abs=0.01)


def test_a_lean_towards_stereotypes_has_its_sign() -> None:
    data = prompts()
    favours = {"pilot": "man", "nurse": "woman", "cook": "woman", "judge": "man"}
    rows = [replace(r, attributes={**r.attributes, "favours": favours[r.id]}) for r in data.examples]
    data = replace(data, examples=tuple(rows))
    biased = Drawer(men={"pilot": 0.9, "nurse": 0.1, "cook": 0.1, "judge": 0.9})
    assert measured(biased, data)["towards_stereotype", "all prompts"].value == pytest.approx(0.4)
    assert measured(Drawer(), data)["towards_stereotype", "all prompts"].value == pytest.approx(0)
    assert ("towards_stereotype", "all prompts") not in measured(biased, prompts())


def test_fair_shares_of_the_user() -> None:
    fair = prompts(shares="0.75|0.25")
    rows = measured(Drawer(men=dict.fromkeys(WORK, 0.75)), fair)
    assert rows["neutrality", "all prompts"].value == pytest.approx(1)
    assert rows["group_share", "man"].floor == 0.75
    assert measured(Drawer(men=dict.fromkeys(WORK, 0.0)), fair)["neutrality", "all prompts"].value == pytest.approx(0)
    for shares in ("0.5|0.2", "1|0", "half|half", "1"):
        with pytest.raises(BadData, match="has the shares"):
            measured(Drawer(), prompts(shares=shares))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=4).filter(sum))
def test_neutrality_is_between_0_and_1_and_blind_to_names(counts: list[int]) -> None:
    fair = {str(k): 1 / len(counts) for k in range(len(counts))}
    told = {str(k): float(count) for k, count in enumerate(counts)}
    value = neutrality_of(told, fair)
    assert -1e-9 <= value <= 1 + 1e-9
    turned = dict(zip(told, random.Random(0).sample(counts, len(counts)), strict=True))
    assert neutrality_of(turned, fair) == pytest.approx(value)
    if len(counts) == 2:
        assert value == pytest.approx(1 - abs(2 * counts[0] / sum(counts) - 1))


def test_what_is_held_back_or_shows_something_else_is_told() -> None:
    rows = measured(Drawer(held="nurse", wrong="judge"), prompts())
    assert (rows["group_share", "man: nurse"].n, rows["group_share", "man: nurse"].unscored) == (10, 10)
    assert rows["neutrality", "all prompts"].unscored == 10
    assert rows["shows_what_was_asked", "all prompts"].value == pytest.approx(50 / 70)


def test_it_needs_a_reader_and_prompts() -> None:
    with pytest.raises(UsageError, match="needs a reference"):
        SUITE.samples(Drawer(), prompts(), None, seed=0)  # type: ignore[arg-type]
    with pytest.raises(BadData, match="holds no prompts to draw"):
        measured(Drawer(), Dataset("plain", (Example("a", "a photo of a cat"),)))
