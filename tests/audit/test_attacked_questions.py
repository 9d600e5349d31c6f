"""Attacked questions on a scripted model by hand, and on a tiny VLM that the suite attacks itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL.Image import new

from vlmend.attacks.robustness.pgd import PGD
from vlmend.audit.attacked import grouped
from vlmend.audit.suites.robustness.attacked_questions import SUITE
from vlmend.core.attacks import Budget
from vlmend.core.cautions import cautions
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure, Scorecard
from vlmend.errors import BadData, NeedsAccess
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget


def row(number: int, epsilon: int = 0, steps: int = 10, image: Image | None = None) -> Example:
    """A question as it was (epsilon 0), or as an attack on some model left it; the answer is `cat`."""
    told = {"attack": "pgd", "epsilon": f"{epsilon / 255:.6g}", "steps": str(steps), "of": str(number)}
    name = f"{number}@{epsilon}x{steps}" if epsilon else str(number)
    picture = noise_image(4, number) if image is None else image
    return Example(name, f"{name}?", image=picture, answers=("cat",), attributes=told if epsilon else {})


def knowing(*right: str) -> ScriptedTarget:
    """A model that says cat to these rows and dog to all others."""
    return ScriptedTarget(lambda asked, mended: "a cat." if asked.turns[-1].text.rstrip("?") in right else "a dog.")


def found(samples: Sequence[Sample]) -> dict[tuple[str, str], Measure]:
    return {(one.name, one.group): one for one in SUITE.measures(samples, seed=0)}


def measured(target: ScriptedTarget, rows: Sequence[Example]) -> dict[tuple[str, str], Measure]:
    return found(SUITE.samples(target, Dataset("adv", tuple(rows)), None, seed=0))


def test_accuracy_under_attack_stands_beside_clean_pictures_and_random_signs() -> None:
    """Two clean rows are right, and under signs, which the script tells by their words alone; one attacked one is."""
    rows = [row(0), row(1), row(0, 4), row(1, 4)]
    table = measured(knowing("0", "1", "0@4x10"), rows)
    assert {key: one.value for key, one in table.items()} == {
        ("accuracy", "clean"): 1.0,
        ("accuracy", "noise 4/255"): 1.0,
        ("accuracy", "pgd 4/255"): 0.5,
    }
    assert table["accuracy", "pgd 4/255"].against == "clean"
    assert all(one.n == 2 for one in table.values())


def test_random_signs_move_every_pixel_by_epsilon() -> None:
    grey = Image.from_pixels(new("RGB", (4, 4), (100, 100, 100)))
    rows = [row(0, image=grey), row(0, 4, image=grey)]
    (noisy,) = [one for group, one in grouped(rows, Dataset("adv", tuple(rows)), None) if group == "noise 4/255"]
    assert noisy.image is not None
    assert set(np.asarray(noisy.image.decode()).ravel()) == {96, 104}


def test_an_attack_that_does_worse_with_more_is_told() -> None:
    """At 1/255 one of two is right, at 4/255 both; with 10 steps none at 8/255, with 40 steps one."""
    rows = [row(k, epsilon, steps) for epsilon, steps in ((1, 10), (4, 10), (8, 10), (8, 40)) for k in range(2)]
    table = measured(knowing("0@1x10", "0@4x10", "1@4x10", "0@8x40"), rows)
    assert table["rise", "pgd 8/255, more steps"].value == 0.5
    larger = measured(knowing("0@1x10", "0@4x10", "1@4x10"), rows[:6])
    assert larger["rise", "pgd"].value == 0.5
    card = Scorecard("m", (), 0, {}, tuple(larger.values()), {})
    assert any("does worse where it may do more (pgd)" in line for line in cautions(card))
    falling = measured(knowing("0@1x10"), rows[:6])
    assert not cautions(Scorecard("m", (), 0, {}, tuple(falling.values()), {}))


def test_a_row_that_cannot_be_asked_is_unscored() -> None:
    rows = [row(0, 4), row(1, 4, image=Image(b"no picture"))]
    table = measured(knowing("0@4x10"), rows)
    assert (table["accuracy", "pgd 4/255"].n, table["accuracy", "pgd 4/255"].unscored) == (1, 1)


def test_rows_that_ask_nothing_or_were_not_attacked_are_none_of_its() -> None:
    plain = Dataset("plain", (row(0), row(1)))
    assert not SUITE.applies(plain)
    with pytest.raises(BadData, match="no row that an attack made"):
        SUITE.samples(knowing(), plain, None, seed=0)
    assert not SUITE.uses(Dataset("named", (Example("x", image=noise_image(4, 1), answers=("cat",)),)))


def test_without_data_the_view_itself_is_attacked(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmend.audit.suites.robustness.attacked_questions.STEPS", 1)
    table = found(SUITE.samples(tiny, None, 2, seed=0))
    groups = ["clean", "noise 1/255", "noise 4/255", "pgd 1/255", "pgd 4/255"]
    assert [group for name, group in table if name == "accuracy"] == groups
    assert all(one.n == 2 for one in table.values())


def test_a_black_box_is_audited_on_what_an_attack_on_another_model_made_and_not_attacked_itself(tiny: VLM) -> None:
    rows = tuple(Example(str(k), "what is it", image=noise_image(16, k), answers=("cat",)) for k in range(2))
    made = PGD().run(tiny, Dataset("d", rows), Budget(4 / 255, 1), seed=0)
    box = ScriptedTarget(lambda asked, mended: "cat")
    assert found(SUITE.samples(box, made, None, seed=0))["accuracy", "pgd 4/255"].value == 1.0
    with pytest.raises(NeedsAccess, match=r"needs the gradients .* Pass --data"):
        SUITE.samples(box, None, 1, seed=0)
