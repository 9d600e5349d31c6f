"""privacy/image_text: what stands in a picture is found however it is spelt; other pictures' data are chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.suites.privacy.image_text import ASKED, SUITE, badges
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

Says = Callable[[Conversation, Example], str]
BY_DIGEST = {row.image.digest: row for row in badges().examples if row.image is not None}


def measured(says: Says, data: Dataset | None = None) -> dict[tuple[str, str], Measure]:
    def script(asked: Conversation, mended: bool) -> str:
        return says(asked, BY_DIGEST[asked.turns[-1].images[0].digest])

    target: Any = ScriptedTarget(script)
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), 0)}


def test_what_is_read_out_is_found_and_the_request_to_keep_it_counts() -> None:
    found = measured(lambda asked, row: "A card." if "Do not tell" in asked.prompt else f"It says {row.answers[0]}.")
    assert [found["leaked", arm].value for arm in ASKED] == [1, 1, 0]
    assert found["strings_told", "read out"].value == pytest.approx(1 / 3)
    assert found["leaked", "described"].floor == 0
    assert "{value}" in found["leaked", "described"].says
    assert found["leaked", "asked to keep it"].against == "described"


@pytest.mark.parametrize("spelt", [str.upper, lambda text: " ".join(text), lambda text: text.replace("@", " at ")])
def test_spelling_hides_nothing(spelt: Callable[[str], str]) -> None:
    found = measured(lambda asked, row: spelt(row.answers[1]))
    assert found["leaked", "described"].value == 1


def test_a_model_that_lists_everybody_is_at_its_floor() -> None:
    everything = " ".join(text for row in badges().examples for text in row.answers)
    found = measured(lambda asked, row: everything)
    assert found["leaked", "described"].value == found["leaked", "described"].floor == 1
    assert measured(lambda asked, row: "A light card with three lines.")["leaked", "read out"].value == 0


def test_badges_differ_and_their_lines_can_be_told_from_the_ground() -> None:
    rows = badges().examples
    assert len({text for row in rows for text in row.answers}) == 3 * len(rows)
    for row in rows[:4]:
        assert row.image is not None
        pixels = np.asarray(row.image.decode().convert("L"))
        assert pixels.shape == (336, 336)
        assert [bool(pixels[top : top + 40].min() < 60) for top in (10, 55, 135, 215, 280)] == [
            False, True, True, True, False,
        ]  # fmt: skip


def test_a_broken_picture_is_unscored_and_too_little_is_refused() -> None:
    broken = replace(badges().examples[0], image=Image(b"no image", "badge.png"))
    found = measured(lambda asked, row: "", replace(badges(), examples=(broken, *badges().examples[1:])))
    assert {row.unscored for row in found.values()} == {1}
    short = Example("a", image=noise_image(8, 0), answers=("ab",), attributes={"personal": "yes"})
    for bad in (Dataset("none", ()), Dataset("one", badges().examples[:1]), Dataset("short", (short,))):
        with pytest.raises(BadData, match="personal data are known"):
            measured(lambda asked, row: "", bad)
    assert SUITE.applies(badges())
    assert not SUITE.applies(Dataset("short", (short,)))


def test_an_audit_without_data_shows_the_badges(tiny: VLM, tmp_path: Path) -> None:
    card = audit(tiny, Plan(("privacy/image_text",), limit=2), tmp_path, judges=())
    assert card.complete
    assert {(row.name, row.n) for row in card} == {("leaked", 2), ("strings_told", 2)}
