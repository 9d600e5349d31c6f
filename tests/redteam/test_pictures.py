"""Red team of a pipeline that draws: a procedural stub with a planted association."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL.Image
import pytest
from tests.redteam.test_search import letters

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import Kind
from vlmend.errors import BadParameter, UsageError
from vlmend.redteam.pictures import Drawn, flags, red_team_pictures
from vlmend.redteam.space import read_templates
from vlmend.testing import ScriptedTarget

WORDS = [f"{a}{b}" for a in ("bo", "da", "fi", "ku", "le") for b in ("x", "z", "q", "v")]
PROMPTS = Dataset("seeds", tuple(Example(word, f"a {word} on a table", group=word) for word in WORDS))
NEUTRAL = [f"a {word} in a garden" for word in WORDS[:10]]
HIDDEN = ("daz", "kuq")
RED, GREY = (220, 20, 20), (120, 120, 120)


@dataclass(frozen=True)
class Stub:
    """Paints grey, and red where the prompt names a hidden word; a corner is red in one drawing of ten by chance."""

    name: str = "stub"
    mends: tuple[Mend, ...] = ()
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    hidden: tuple[str, ...] = HIDDEN
    kind: ClassVar[Kind] = "draw"
    id: ClassVar[str] = "stub"
    model_digest: ClassVar[str] = "0"
    identity: ClassVar[Mapping[str, str]] = {}

    @property
    def bare(self) -> Stub:
        return self

    def with_mend(self, mend: Mend) -> Stub:
        raise NotImplementedError

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        self.asked.extend(zip(prompts, seeds, strict=True))
        return [self._one(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _one(self, prompt: str, seed: int) -> Image:
        picture = PIL.Image.new("RGB", (16, 16), RED if any(word in prompt for word in self.hidden) else GREY)
        if random.Random(f"{prompt}:{seed}").random() < 0.1:
            picture.paste(RED, (0, 0, 4, 4))
        return Image.from_pixels(picture)


def redness(image: Image) -> float:
    pixels = np.asarray(image.decode(), float)
    return float((pixels[..., 0] > 200).mean())


DETECTORS = {"red": lambda image: redness(image) > 0.5, "corner": lambda image: redness(image) > 0.01}
"""One that is right, and one that a red corner sets off."""


def run(out: Path, target: Stub | None = None, **changed: object) -> Drawn:
    given: dict[str, object] = {
        "budget": 128, "detectors": DETECTORS, "filters": {}, "templates": read_templates()[:3], "embed": letters,
    }  # fmt: skip
    return red_team_pictures(target or Stub(), PROMPTS, NEUTRAL, out, **(given | changed))  # type: ignore[arg-type]


def test_the_hidden_association_is_found_and_the_floor_is_subtracted(tmp_path: Path) -> None:
    drawn = run(tmp_path / "run")
    assert {f"{word} beside drawn" for word in HIDDEN} <= set(drawn.found.modes)
    assert 0 < drawn.floor.value < 0.3  # one drawing of ten
    assert drawn.excess.value == drawn.fresh.value - drawn.floor.value
    assert set(drawn.confirmed) == {f"{word} beside drawn" for word in HIDDEN}


def test_a_clean_pipeline_has_finds_by_false_alarm_and_none_is_confirmed(tmp_path: Path) -> None:
    drawn = run(tmp_path / "run", Stub(hidden=()))
    assert drawn.found.finds > 0
    assert drawn.confirmed == ()
    assert drawn.majority == 0
    assert drawn.excess.low <= 0


def test_a_filter_that_knows_the_word_leaves_nothing_of_it(tmp_path: Path) -> None:
    known = {"words": lambda prompt: any(word in prompt for word in HIDDEN)}
    drawn = run(tmp_path / "run", filters=known, search="random")
    assert not {f"{word} beside drawn" for word in HIDDEN} & set(drawn.found.modes)
    assert drawn.filtered > 0


def test_a_filter_that_fails_counts_as_fired(tmp_path: Path) -> None:
    def broken(prompt: str) -> bool:
        raise RuntimeError("no network")

    target = Stub()
    drawn = run(tmp_path / "run", target, filters={"broken": broken}, search="random")
    assert (drawn.found.finds, drawn.filtered) == (0, 128)
    assert {prompt for prompt, _ in target.asked} == set(NEUTRAL)


def test_any_fires_at_least_as_often_as_the_majority() -> None:
    red, corner = Stub()._one("daz", 0), PIL.Image.new("RGB", (16, 16), GREY)
    corner.paste(RED, (0, 0, 4, 4))
    found = [flags(one, DETECTORS) for one in (red, Image.from_pixels(corner), None)]
    assert [(one.any, one.majority) for one in found] == [(True, True), (True, False), (False, False)]


def test_a_stopped_run_goes_on_and_draws_nothing_twice(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", search="reward")
    target = Stub()
    run(tmp_path / "cut", target, budget=48, search="reward")
    before = set(target.asked)
    again = Stub()
    assert run(tmp_path / "cut", again, search="reward").found.curve == whole.found.curve
    assert before.isdisjoint(again.asked)


def test_what_is_lacking_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="asks nothing"):
        run(tmp_path / "run", budget=0)
    with pytest.raises(BadParameter, match="need a detector"):
        run(tmp_path / "run", detectors={})
    with pytest.raises(UsageError, match="works on a text-to-image"):
        run(tmp_path / "run", ScriptedTarget(lambda *_: ""))  # type: ignore[arg-type]
