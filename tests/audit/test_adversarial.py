"""The adversarial suite on a scripted encoder by hand, and on a tiny CLIP that it attacks itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.attacks.robustness.pgd import PGD
from vlmend.audit.attacked import _said, attacked_by_itself, grouped
from vlmend.audit.suites.robustness.adversarial import SUITE
from vlmend.core.attacks import Budget, Proposal
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData, NeedsAccess, UsageError
from vlmend.testing import tiny_clip

NAMES = ("cat", "dog")


def row(number: int, answer: str, epsilon: int = 0, image: Image | None = None) -> Example:
    """A row as it was (epsilon 0), or as an attack on some model left it."""
    told = {"attack": "pgd", "epsilon": f"{epsilon / 255:.6g}", "of": str(number)} if epsilon else {}
    picture = noise_image(4, 100 * number + epsilon) if image is None else image
    return Example(f"{number}@{epsilon}" if epsilon else str(number), image=picture, answers=(answer,), attributes=told)


def world(rows: Sequence[Example], right: Sequence[bool]) -> ScriptedDual:
    """An encoder that names each of these pictures as told, and those under random signs right."""
    texts = {f"a photo of a {name}": torch.eye(2)[k] for k, name in enumerate(NAMES)}
    images: dict[str, torch.Tensor] = {}
    for example, fine in zip(rows, right, strict=True):
        assert example.image is not None
        said = NAMES.index(example.answers[0])
        images[example.image.digest] = torch.eye(2)[said if fine else 1 - said]
    if any(example.attributes for example in rows):
        for group, noisy in grouped(rows, Dataset("adv", tuple(rows)), None):
            if "noise" in group and noisy.image is not None:
                images[noisy.image.digest] = torch.eye(2)[NAMES.index(noisy.answers[0])]
    return ScriptedDual(images, texts)


def found(samples: Sequence[Sample]) -> dict[tuple[str, str], Measure]:
    return {(one.name, one.group): one for one in SUITE.measures(samples, seed=0)}


def test_accuracy_by_attack_and_epsilon_worked_out_by_hand() -> None:
    """Clean 4 of 4 are right, at 1/255 2, at 8/255 none; of two classes a coin names half."""
    rows = [row(k, NAMES[k % 2], epsilon) for epsilon in (8, 0, 1) for k in range(4)]
    right = [False] * 4 + [True] * 4 + [True, True, False, False]
    table = found(SUITE.samples(world(rows, right), Dataset("adv", tuple(rows)), None, seed=0))
    assert {key: one.value for key, one in table.items()} == {
        ("accuracy", "clean"): 1.0,
        ("accuracy", "noise 1/255"): 1.0,
        ("accuracy", "noise 8/255"): 1.0,
        ("accuracy", "pgd 1/255"): 0.5,
        ("accuracy", "pgd 8/255"): 0.0,
        ("rise", "pgd"): -0.5,
    }
    groups = ["clean", "noise 1/255", "noise 8/255", "pgd 1/255", "pgd 8/255", "pgd"]
    assert [group for _, group in table] == groups
    assert all(one.floor == 0.5 for (name, _), one in table.items() if name == "accuracy")
    assert table["accuracy", "pgd 1/255"].against == "clean"
    assert table["accuracy", "pgd 1/255"].n == 4


def test_the_curve_begins_at_clean_pictures() -> None:
    rows = [row(k, NAMES[k % 2], epsilon) for epsilon in (0, 1, 8) for k in range(2)]
    right = [True, True, True, False, False, False]
    samples = SUITE.samples(world(rows, right), Dataset("adv", tuple(rows)), None, seed=0)
    curves = {curve.name: curve for curve in SUITE.curves(samples)}
    assert set(curves) == {"pgd", "noise"}
    curve = curves["pgd"]
    assert [(point.x, point.value, point.n) for point in curve.points] == [(0, 1.0, 2), (1, 0.5, 2), (8, 0.0, 2)]
    assert all(point.low < point.value or point.value == 0 for point in curve.points)


def test_more_right_at_a_larger_epsilon_shows_as_a_rise() -> None:
    """Right at 1/255: 1 of 4, at 4/255: 3 of 4, at 8/255: 2 of 4. The largest step up is 0.5."""
    rows = [row(k, NAMES[k % 2], epsilon) for epsilon in (1, 4, 8) for k in range(4)]
    right = [True, False, False, False, True, True, True, False, True, True, False, False]
    table = found(SUITE.samples(world(rows, right), Dataset("adv", tuple(rows)), None, seed=0))
    assert table["rise", "pgd"].value == 0.5
    assert table["rise", "pgd"].low < 0.5 < table["rise", "pgd"].high
    assert table["accuracy", "pgd 4/255"].says == "names {value} of pictures right under a change of up to 4/255 by pgd"
    assert not table["accuracy", "pgd 8/255"].says


def test_a_picture_that_cannot_be_read_is_unscored() -> None:
    broken = row(7, "cat", 4, Image(b"no picture"))
    rows = [row(0, "cat", 4), row(1, "dog", 4)]
    samples = SUITE.samples(world(rows, [True, True]), Dataset("adv", (*rows, broken)), None, seed=0)
    table = found(samples)
    assert (table["accuracy", "pgd 4/255"].n, table["accuracy", "pgd 4/255"].unscored) == (2, 1)
    assert [sample.reason != "" for sample in samples] == [False, False, True]


def test_a_limit_counts_for_each_group_and_classes_stay() -> None:
    rows = [row(k, NAMES[k % 2], epsilon) for epsilon in (0, 4) for k in range(4)]
    samples = SUITE.samples(world(rows, [True] * 8), Dataset("adv", tuple(rows)), 1, seed=0)
    told = [(sample.group, sample.cluster) for sample in samples]
    assert told == [("clean", "0"), ("noise 4/255", "0"), ("pgd 4/255", "0")]
    assert samples[0].values["accuracy_floor"] == 0.5


def test_data_without_an_attack_are_refused_and_left_out_of_an_axis() -> None:
    clean = Dataset("plain", (row(0, "cat"), row(1, "dog")))
    assert not SUITE.applies(clean)
    assert SUITE.applies(replace(clean, examples=(row(0, "cat", 4),)))
    with pytest.raises(BadData, match="no row that an attack made"):
        SUITE.samples(world(clean.examples, [True, True]), clean, None, seed=0)


def test_without_data_the_view_itself_is_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures of all names: clean once, noise and attack at 1, 4 and 8 of 255."""
    monkeypatch.setattr("vlmend.audit.suites.robustness.adversarial.STEPS", 2)
    samples = SUITE.samples(tiny_clip(), None, 2, seed=0)
    groups = ["clean", *(f"noise {k}/255" for k in (1, 4, 8)), *(f"pgd {k}/255" for k in (1, 4, 8))]
    table = found(samples)
    assert [group for name, group in table if name == "accuracy"] == groups
    assert all(table["accuracy", group].n == 2 for group in groups)
    assert 0 < table["accuracy", "clean"].floor < 0.05
    assert ("rise", "pgd") in table
    assert ("rise", "noise") not in table


def test_a_model_without_gradients_needs_data() -> None:
    rows = [row(0, "cat", 4), row(1, "dog", 4)]
    target = world(rows, [True, True])
    assert SUITE.samples(target, Dataset("adv", tuple(rows)), None, seed=0)
    with pytest.raises((NeedsAccess, UsageError)):
        SUITE.samples(target, None, 2, seed=0)


def test_what_an_attack_on_one_model_made_is_measured_on_another() -> None:
    target, names = tiny_clip(), [f"thing {k}" for k in range(3)]
    rows = tuple(Example(str(k), image=noise_image(16, k), answers=(names[k % 3],)) for k in range(6))
    made = PGD().run(target, Dataset("d", rows), Budget(16 / 255, 5), seed=0)
    own, other = (found(SUITE.samples(one, made, None, seed=0)) for one in (target, tiny_clip(seed=1)))
    told = sum(row.attributes["attacked"] == "right" for row in made.examples) / 6
    assert own["accuracy", "pgd 16/255"].value == pytest.approx(told)
    assert not math.isnan(other["accuracy", "pgd 16/255"].value)


def test_the_first_sentence_tells_each_attack_by_name() -> None:
    """The size nearest to 4/255 is told, and words; of pictures under a shift only where there are no others."""
    assert set(_said(["clean", "noise 4/255", "apgd 4/255", "pgd 4/255", "pgd 8/255"])) == {"apgd 4/255", "pgd 4/255"}
    assert set(_said(["pgd 2/255", "pgd 8/255, 40 steps", "fog: pgd 4/255"])) == {"pgd 2/255"}
    assert _said(["fog", "fog: pgd 8/255"]) == {"fog: pgd 8/255": " under a change of up to 8/255 by pgd (fog)"}
    words = _said(["text_swap 2 words", "co_attack 4/255 1 words"])
    assert words["text_swap 2 words"] == " under 2 words changed by text_swap"
    assert words["co_attack 4/255 1 words"] == " under a change of up to 4/255 by co_attack and 1 words changed"


def test_pictures_under_a_shift_are_groups_of_their_own() -> None:
    """Two clean pictures are right, the same two in fog wrong, and attacked in fog; none of these is a clean one."""
    clean = [row(k, NAMES[k]) for k in range(2)]
    fog = [replace(row(10 + k, NAMES[k]), attributes={"shift": "fog 3", "of": str(k)}) for k in range(2)]
    attacked = [row(k, NAMES[k], 4) for k in range(2)]
    both = [replace(row(10 + k, NAMES[k], 4)) for k in range(2)]
    both = [replace(one, attributes={**one.attributes, "shift": "fog 3"}) for one in both]
    rows = [*clean, *fog, *attacked, *both]
    right = [True, True, False, False, True, False, False, False]
    samples = SUITE.samples(world(rows, right), Dataset("adv", tuple(rows)), None, seed=0)
    table = found(samples)
    assert {group: (one.value, one.n, one.against) for (name, group), one in table.items() if name == "accuracy"} == {
        "clean": (1.0, 2, ""), "noise 4/255": (1.0, 2, ""), "pgd 4/255": (0.5, 2, "clean"),
        "fog 3": (0.0, 2, ""), "fog 3: noise 4/255": (1.0, 2, ""), "fog 3: pgd 4/255": (0.0, 2, "fog 3"),
    }  # fmt: skip
    lines = {curve.name: [(point.x, point.value) for point in curve.points] for curve in SUITE.curves(samples)}
    assert lines["fog 3: pgd"] == [(0, 0.0), (4, 0.0)]
    assert lines["pgd"] == [(0, 1.0), (4, 0.5)]


def test_a_row_on_which_the_attack_made_no_step_has_no_score_under_it() -> None:
    """Else a model without a gradient looks robust."""
    told = {"steps": "10", "backward": "10", "dropped": "10"}
    rows = [row(0, "cat"), row(1, "dog"), row(0, "cat", 4), row(1, "dog", 4)]
    rows[2] = replace(rows[2], attributes={**rows[2].attributes, **told})
    rows[3] = replace(rows[3], attributes={**rows[3].attributes, **told, "dropped": "9"})
    samples = SUITE.samples(world(rows, [True] * 4), Dataset("adv", tuple(rows)), None, seed=0)
    table = {group: one for (name, group), one in found(samples).items() if name == "accuracy"}
    assert (table["pgd 4/255"].n, table["pgd 4/255"].unscored) == (1, 1)
    assert (table["clean"].n, table["noise 4/255"].n) == (2, 2)


def test_a_built_in_picture_that_cannot_be_attacked_is_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(PGD):
        def propose(self, task: Any, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
            if any(row.answers == ("thing 1",) for row in rows):
                raise ValueError("not this one")
            return super().propose(task, rows, budget, seeds)

    monkeypatch.setattr("vlmend.audit.attacked.registry.make_attack", lambda name, parameters: Failing())
    rows = tuple(Example(str(k), image=noise_image(16, k), answers=(f"thing {k}",)) for k in range(3))
    samples = attacked_by_itself(tiny_clip(), Dataset("d", rows), (4,), 1, 3, None, 0)
    table = found(samples)
    assert {group: (one.n, one.unscored) for (_, group), one in table.items()} == {
        "clean": (2, 1), "noise 4/255": (2, 1), "pgd 4/255": (2, 1),
    }  # fmt: skip


@pytest.mark.parametrize("epsilon", ["4/255", f"{4 / 255:.6g}", " 4/255 "])
def test_epsilon_of_ones_own_rows_is_a_fraction_or_a_number(epsilon: str) -> None:
    rows = [replace(row(k, NAMES[k], 4), attributes={"attack": "mine", "epsilon": epsilon}) for k in range(2)]
    table = found(SUITE.samples(world(rows, [True, False]), Dataset("adv", tuple(rows)), None, seed=0))
    assert {group for _, group in table} == {"mine 4/255"}


@pytest.mark.parametrize("told", [{}, {"epsilon": "8"}, {"epsilon": "x"}, {"epsilon": "-0.1"}, {"words": "two"}])
def test_an_attacked_row_that_does_not_tell_how_much_is_refused(told: dict[str, str]) -> None:
    rows = [replace(row(k, NAMES[k], 4), attributes={"attack": "mine", **told}) for k in range(2)]
    with pytest.raises(BadData, match="has the attack 'mine'"):
        grouped(rows, Dataset("adv", tuple(rows)), None)
