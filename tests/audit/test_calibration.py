"""robustness/calibration on worlds whose confidence is planted: errors by hand, shifts paired, a clean twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.audit.scripted_dual import SCALE, ScriptedDual

from vlmend.audit.suites.robustness.calibration import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData

NAMES = ("cat", "dog")


def direction(sure: float, chosen: int) -> torch.Tensor:
    """A unit vector whose softmax over two axes, times the scale, gives the chosen one this probability.

    At angle a from it the logits differ by 20 (cos a - sin a) = 20 sqrt 2 cos(a + pi / 4).
    """
    angle = math.acos(math.log(sure / (1 - sure)) / (SCALE * math.sqrt(2))) - math.pi / 4
    pair = torch.tensor([math.cos(angle), math.sin(angle)])
    return pair if chosen == 0 else pair.flip(0)


def world(shown: Sequence[tuple[str, float, bool]]) -> tuple[ScriptedDual, Dataset]:
    """Pictures of cats and dogs: for each its shift, how sure the encoder is, and whether it is right.

    Pictures of one shift are counted from 0; those of one number are the same picture without and with the shift.
    """
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    counts: dict[str, int] = {}
    for place, (shift, sure, right) in enumerate(shown):
        number = counts[shift] = counts.get(shift, -1) + 1
        image, name = noise_image(4, place), number % 2
        images[image.digest] = direction(sure, name if right else 1 - name)
        told = {"shift": shift, "of": f"{number}"} if shift else {}
        rows.append(Example(f"{number}{shift}", image=image, answers=(NAMES[name],), attributes=told))
    texts = {f"a photo of a {name}": torch.eye(2)[k] for k, name in enumerate(NAMES)}
    return ScriptedDual(images, texts), Dataset("pets", tuple(rows))


def found(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


def test_errors_and_the_change_under_a_shift_by_hand() -> None:
    """0.75 sure each: 3 of 4 right is calibrated, 1 of 4 is 0.5 off.

    Brier is 2 / 16 where right and 18 / 16 where wrong: (3 x 2 + 18) / 64 = 0.375, then (2 + 3 x 18) / 64 = 0.875.
    """
    clean = [("", 0.75, right) for right in (True, True, True, False)]
    blurred = [("blur", 0.75, right) for right in (True, False, False, False)]
    table = found(*world([*clean, *blurred]))
    values = {key: pytest.approx(row.value, abs=1e-6) for key, row in table.items()}
    assert values["ece", "clean"] == values["adaptive_ece", "clean"] == 0
    assert values["ece", "blur"] == values["adaptive_ece", "blur"] == values["ece_change", "blur"] == 0.5
    assert (values["brier", "clean"], values["brier", "blur"], values["brier_change", "blur"]) == (0.375, 0.875, 0.5)
    assert (values["overconfidence", "clean"], values["overconfidence", "blur"]) == (0, 0.5)
    assert (table["accuracy", "clean"].floor, table["brier", "clean"].floor) == (0.5, 0.5)
    assert table["nll", "clean"].floor == pytest.approx(math.log(2))
    assert table["ece_change", "blur"].n == 4


def test_a_reliability_diagram_of_each_shift() -> None:
    target, data = world([("", 0.75, True), ("", 0.75, False), ("", 0.95, True), ("blur", 0.75, True)])
    clean, blurred = SUITE.curves(SUITE.samples(target, data, None, seed=0))
    assert (clean.title, blurred.title) == ("reliability, clean", "reliability, blur")
    assert [(pytest.approx(p.x, abs=1e-5), p.value, p.n) for p in clean.points] == [(0.75, 0.5, 2), (0.95, 1.0, 1)]
    assert [(p.value, p.n) for p in blurred.points] == [(1.0, 1)]
    assert clean.diagonal


def planted(stretch: float) -> dict[tuple[str, str], Measure]:
    """60 pictures at each of five confidences, that share of them right; the log odds are then stretched."""
    shown: list[tuple[str, float, bool]] = []
    for percent in (55, 65, 75, 85, 95):
        sure = 1 / (1 + ((100 - percent) / percent) ** stretch)
        shown += [("", sure, k < 60 * percent / 100) for k in range(60)]
    return found(*world(shown))


def test_stretched_confidence_is_found_and_nothing_in_the_clean_twin() -> None:
    vain, fine = planted(3.0), planted(1.0)
    for name in ("ece", "adaptive_ece"):
        assert vain[name, "clean"].low > vain[name, "clean"].floor
        assert fine[name, "clean"].value == pytest.approx(0, abs=1e-6)
        assert fine[name, "clean"].low < fine[name, "clean"].floor
    assert vain["overconfidence", "clean"].low > 0
    assert fine["overconfidence", "clean"].low < 0 < fine["overconfidence", "clean"].high
    assert vain["accuracy", "clean"].value == fine["accuracy", "clean"].value
    assert vain["brier", "clean"].value > fine["brier", "clean"].value
    assert vain["ece", "clean"].says


@given(st.floats(0.51, 0.99), st.booleans())
def test_confidence_is_that_of_the_name_chosen(sure: float, right: bool) -> None:
    (sample, _) = SUITE.samples(*world([("", sure, right), ("", 0.9, True)]), None, seed=0)
    assert sample.values["confidence"] == pytest.approx(sure, abs=1e-5)
    assert sample.values["accuracy"] == right


def test_a_broken_picture_is_unscored_by_name_and_leaves_its_pair() -> None:
    shown = [(shift, 0.75, True) for shift in ("", "", "", "blur", "blur", "blur")]
    target, data = world(shown)
    broken = [replace(row, image=Image(b"no picture")) if row.id == "1blur" else row for row in data.examples]
    whole = replace(data, examples=tuple(broken))
    samples = SUITE.samples(target, whole, None, seed=0)
    assert [sample.id for sample in samples if sample.reason] == ["1blur"]
    table = found(target, whole)
    assert (table["ece", "blur"].n, table["ece", "blur"].unscored) == (2, 1)
    assert (table["ece_change", "blur"].n, table["ece_change", "blur"].unscored) == (2, 1)


def test_shifted_pictures_of_nothing_clean_have_no_change() -> None:
    target, data = world([("blur", 0.75, True), ("blur", 0.75, False)])
    assert not [key for key in found(target, data) if key[0].endswith("_change")]
    target, data = world([("", 0.75, True), ("", 0.75, True), ("blur", 0.75, True)])
    apart = tuple(replace(row, attributes={"shift": "blur"}) if row.id == "0blur" else row for row in data.examples)
    table = found(target, replace(data, examples=apart))
    assert table["ece_change", "blur"].n == 0
    assert math.isnan(table["ece_change", "blur"].value)


def test_rows_of_an_attack_and_rows_of_one_name_are_not_measured() -> None:
    target, data = world([("", 0.75, True), ("", 0.75, True), ("", 0.75, True)])
    attacked = replace(data.examples[2], attributes={"attack": "pgd", "epsilon": "0.015"})
    samples = SUITE.samples(target, replace(data, examples=(*data.examples[:2], attacked)), None, seed=0)
    assert [sample.id for sample in samples] == ["0", "1"]
    cats = replace(data, examples=data.examples[::2])
    assert SUITE.applies(data)
    assert not SUITE.applies(cats)
    with pytest.raises(BadData, match="2 pictures of 1 names"):
        SUITE.samples(target, cats, None, seed=0)


def test_a_limit_counts_for_each_shift_and_names_stay() -> None:
    target, data = world([(shift, 0.75, True) for shift in ("", "", "", "blur", "blur", "blur")])
    samples = SUITE.samples(target, data, 1, seed=0)
    assert [(sample.id, sample.cluster) for sample in samples] == [("0", "0"), ("0blur", "0")]
    assert samples[0].values["accuracy_floor"] == 0.5
