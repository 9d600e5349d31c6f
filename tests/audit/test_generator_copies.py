"""privacy/generator_copies on scripted drawers: one that draws repeated pictures again, its twin, what is held back."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tests.phantom.draw.tiny import TINY

from vlmend.audit.suites.privacy.generator_copies import DRAWINGS, SUITE
from vlmend.audit.suites.privacy.generator_copies import _copies as copies
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.phantom.draw.copies import copies_data
from vlmend.testing.fakes import PlainDrawer, narrowed

REPEATED, ONCE, HELD = 24, 40, 30
WORDS = ("lamp", "boat", "tree", "coat")


def row(name: str, picture: int, words: str, **told: str) -> Example:
    return Example(name, words, image=noise_image(16, picture), attributes=told)


def world() -> Dataset:
    """Noise for pictures; who is repeated can be told neither from words nor from pixels."""
    rows = [row(f"r{k}", k, f"{WORDS[k % 4]} {k}", repeats="9") for k in range(REPEATED)]
    rows += [row(f"o{k}", 100 + k, f"{WORDS[k % 4]} {100 + k}", repeats="1") for k in range(ONCE)]
    rows += [row(f"g{k}", 200 + k, "", repeats="1") for k in range(10)]
    rows += [row(f"h{k}", 300 + k, f"{WORDS[k % 4]} {k}", member="no") for k in range(HELD)]
    return Dataset("world", tuple(rows))


@dataclass(frozen=True)
class Drawer(PlainDrawer):
    """Draws the picture that a prompt is told to stand for, with a little noise; noise of the seed for the others."""

    copies: Mapping[str, Image] = field(default_factory=dict)
    held: str = ""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        return [self._one(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _one(self, prompt: str, seed: int) -> Image | None:
        if prompt == self.held:
            return None
        if prompt not in self.copies:
            return noise_image(16, seed)
        pixels = np.asarray(self.copies[prompt].decode(), float) + np.random.default_rng(seed).normal(0, 8, (16, 16, 3))
        return Image.from_pixels(PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))

    def draw_with_pull(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image | None, float]]:
        drawn = self.draw(prompts, seeds)
        pulls = [2.0 * (prompt in self.copies) + seed / 2**31 for prompt, seed in zip(prompts, seeds, strict=True)]
        return list(zip(drawn, pulls, strict=True))


def parrot(data: Dataset, **changed: Any) -> Drawer:
    return Drawer(copies={r.prompt: r.image for r in data.examples if r.id[0] == "r" and r.image}, **changed)


def measured(samples: list[Sample]) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(samples, 0)}


def test_planted_copies_are_found_by_all_three_scores() -> None:
    data = world()
    found = measured(SUITE.samples(parrot(data), data, None, seed=0))
    assert found["copied", "repeated"].value == found["own_copied", "repeated"].value == 1
    assert found["clique", "repeated"].value == 1
    assert found["copied", "once"].value < 0.1
    assert found["own_copied", "held_out"].value < 0.05
    assert found["copied", "once"].floor == 0, "none of the held-out pictures would count as a copy"
    for score in ("copy_score", "seeds_alike", "pull"):
        assert found["auroc", score].value == 1
        assert found["tpr_at_1_fpr", score].n == 0, "40 prompts cannot show a rate of 1 %"
    assert found["copied", "repeated"].says


def test_a_copy_is_nearer_than_half_the_mean_of_the_nearest_by_hand() -> None:
    """Cosines 0.875 and 0 to two training pictures are 0.5 and 1.414 apart: half their mean is 0.479, below 0.5."""
    training = np.eye(3)[:2]
    near = np.array([[0.875, 0.0, (1 - 0.875**2) ** 0.5], [0.9, 0.0, (1 - 0.81) ** 0.5]])
    assert copies(near[:, 0], near, training).tolist() == [False, True]


def test_the_twin_that_draws_noise_is_at_the_floor() -> None:
    data = world()
    found = measured(SUITE.samples(Drawer(), data, None, seed=0))
    for group in ("repeated", "once"):
        row = found["copied", group]
        assert row.low < row.floor + 0.05
        assert found["clique", group].value < 0.3
    for score in ("copy_score", "seeds_alike", "pull"):
        assert found["auroc", score].low < 0.5 < found["auroc", score].high


def test_shuffled_prompts_take_the_separation_away() -> None:
    data = world()
    prompted = [r for r in data.examples if r.prompt and r.id[0] in "ro"]
    prompts = random.Random(3).sample([r.prompt for r in prompted], len(prompted))
    dealt = dict(zip([r.id for r in prompted], prompts, strict=True))
    mixed = replace(data, examples=tuple(replace(r, prompt=dealt.get(r.id, r.prompt)) for r in data.examples))
    found = measured(SUITE.samples(parrot(data), mixed, None, seed=0))
    assert found["auroc", "pull"].low < 0.5 < found["auroc", "pull"].high
    assert found["own_copied", "repeated"].value < 0.2


def test_scores_are_void_where_the_pictures_alone_tell_who_is_repeated() -> None:
    data = world()
    dark = Image.from_pixels(PIL.Image.new("RGB", (16, 16), (9, 9, 9)))
    rows = tuple(replace(r, image=dark) if r.id[0] == "r" else r for r in data.examples)
    found = measured(SUITE.samples(parrot(data), replace(data, examples=rows), None, seed=0))
    assert found["auroc", "blind_pixels"].value > 0.9
    assert "void" in found["auroc", "blind_pixels"].says
    assert math.isnan(found["auroc", "pull"].value)


def test_a_target_that_gives_pictures_alone_has_no_pull() -> None:
    data = world()
    surface = narrowed(parrot(data), "pictures")
    found = measured(SUITE.samples(surface, data, 4, seed=0))
    assert ("auroc", "pull") not in found
    assert found["copied", "repeated"].value == 1


def test_what_is_held_back_and_what_cannot_be_read_is_unscored() -> None:
    data = world()
    rows = tuple(replace(r, image=Image(b"none", "broken.png")) if r.id == "o1" else r for r in data.examples)
    prompt = data.examples[0].prompt
    samples = SUITE.samples(parrot(data, held=prompt), replace(data, examples=rows), None, seed=0)
    unscored = {one.id: one.reason for one in samples if not one.values}
    assert set(unscored) == {"r0", "o1", "h0"}
    assert unscored["r0"] == f"the pipeline held back {DRAWINGS} of its {DRAWINGS} drawings"


@pytest.mark.parametrize("kinds", ["r", "h", "gh", ""])
def test_data_without_prompts_or_without_held_out_pictures_are_refused(kinds: str) -> None:
    data = world()
    some = replace(data, examples=tuple(r for r in data.examples if r.id[0] in kinds))
    assert not SUITE.applies(some)
    with pytest.raises(BadData, match="some are needed of either"):
        SUITE.samples(Drawer(), some, None, seed=0)


def test_the_phantoms_rows_tell_what_stands_how_often_and_what_was_never_shown() -> None:
    """4 things of 4 views, of one of which there is one picture 5 times: 13 pictures, and 2 more views of each."""
    rows = copies_data(TINY).examples
    told = [(r.attributes.get("repeats", "never"), bool(r.prompt)) for r in rows]
    assert told.count(("5", True)) == 1
    assert (told.count(("1", True)), told.count(("1", False))) == (3, 9)
    assert told.count(("never", True)) == 8
    assert len({r.image.digest for r in rows if r.image}) == len(rows)
