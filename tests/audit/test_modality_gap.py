"""robustness/modality_gap on planted worlds: a gap by hand and none in the twin, attacked pairs, broken pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.robustness.modality_gap import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData

COUNT = 30


def world(angle: float, attacked: float = 0.0) -> tuple[ScriptedDual, Dataset]:
    """Thirty things on axes of their own; images are lifted along a last axis by an angle, texts lowered by it.

    The gap is 2 sin(angle), the cosine of a pair cos(2 angle). `attacked` adds each picture once more, at that angle.
    """

    def placed(k: int, lift: float) -> torch.Tensor:
        vector = torch.zeros(COUNT + 1)
        vector[k], vector[COUNT] = math.cos(lift), math.sin(lift)
        return vector

    images, rows = {}, []
    for lift, told in (
        (angle, {}),
        *([(attacked, {"attack": "pgd", "epsilon": f"{4 / 255:.6g}"})] if attacked else []),
    ):
        for k in range(COUNT):
            image = noise_image(4, 1000 * len(told) + k)
            images[image.digest] = placed(k, lift)
            attributes = {**told, "of": str(k)} if told else {}
            rows.append(
                Example(
                    f"{k}-{len(told)}" if told else str(k), image=image, answers=(f"thing {k}",), attributes=attributes
                )
            )
    texts = {f"a photo of a thing {k}": placed(k, -angle) for k in range(COUNT)}
    return ScriptedDual(images, texts), Dataset("things", tuple(rows))


def found(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


def values(table: dict[tuple[str, str], Measure], group: str, names: Sequence[str]) -> list[object]:
    return [pytest.approx(table[name, group].value, abs=1e-5) for name in names]


def test_a_planted_gap_is_measured_as_planted() -> None:
    """At 30 degrees: gap 1, cosine of a pair 0.5; other pairs have cosine -sin(30) squared = -0.25."""
    table = found(*world(math.pi / 6))
    names = ("gap", "pair_cosine", "separability", "recall_at_1")
    assert values(table, "clean", names) == [1.0, 0.5, 1.0, 1.0]
    assert table["pair_cosine", "clean"].floor == pytest.approx(-0.25, abs=1e-5)
    assert table["gap", "clean"].floor < 0.3
    assert (table["separability", "clean"].floor, table["recall_at_1", "clean"].floor) == (0.5, pytest.approx(1 / 30))
    assert table["gap", "clean"].says


def test_moved_by_its_factor_the_gap_closes_and_widens() -> None:
    """At factor 0 the lift of every image and text is taken off as a whole: all lie on their axes, cosine 1."""
    table = found(*world(math.pi / 6))
    assert values(table, "clean, gap x0", ("gap", "pair_cosine")) == [0.0, 1.0]
    sizes = [table["gap", f"clean, gap x{factor}"].value for factor in ("0", "0.5", "1.5", "2")]
    assert sizes == sorted(sizes)
    assert sizes[1] < 1 < sizes[2]


def test_nothing_is_found_in_the_clean_twin() -> None:
    table = found(*world(0.0))
    assert values(table, "clean", ("gap", "pair_cosine", "recall_at_1")) == [0.0, 1.0, 1.0]
    assert table["separability", "clean"].value <= 0.5


def test_what_an_attack_changes_is_paired() -> None:
    """Lifted to 60 degrees: the gap is sin 60 + sin 30, the cosine of a pair cos 90 = 0."""
    table = found(*world(math.pi / 6, attacked=math.pi / 3))
    change = table["gap_change", "pgd 4/255"]
    spread = math.hypot(math.cos(math.pi / 3) - math.cos(math.pi / 6), 0) / math.sqrt(COUNT)
    wanted = math.hypot(math.sin(math.pi / 3) + 0.5, spread)
    assert table["gap", "pgd 4/255"].value == pytest.approx(wanted, abs=1e-5)
    assert change.value == pytest.approx(wanted - 1, abs=1e-5)
    assert table["pair_cosine_change", "pgd 4/255"].value == pytest.approx(-0.5, abs=1e-5)
    assert (change.n, change.unscored) == (COUNT, 0)


def test_a_broken_picture_is_unscored_in_every_group() -> None:
    target, data = world(math.pi / 6)
    broken = (replace(data.examples[0], image=Image(b"no picture")), *data.examples[1:])
    samples = SUITE.samples(target, replace(data, examples=broken), None, seed=0)
    assert {sample.cluster for sample in samples if sample.reason} == {"0"}
    table = {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}
    assert (table["gap", "clean"].n, table["gap", "clean"].unscored) == (COUNT - 1, 1)
    assert (table["gap", "clean, gap x0"].n, table["gap", "clean, gap x0"].unscored) == (COUNT - 1, 1)


def test_pictures_of_one_text_are_refused() -> None:
    target, data = world(0.1)
    same = replace(data, examples=tuple(replace(row, answers=("thing 0",)) for row in data.examples))
    assert SUITE.applies(data)
    assert not SUITE.applies(same)
    with pytest.raises(BadData, match="fewer than two different texts"):
        SUITE.samples(target, same, None, seed=0)


def test_pictures_under_a_shift_are_no_clean_ones() -> None:
    """The pictures once more in fog, at another angle: the clean rows are those of the twin without fog."""
    target, data = world(math.pi / 6, attacked=math.pi / 3)
    rows = [
        replace(r, attributes={"shift": "fog", "of": r.attributes["of"]} if r.attributes else {}) for r in data.examples
    ]
    table, twin = found(target, replace(data, examples=tuple(rows))), found(*world(math.pi / 6))
    assert (table["gap", "clean"].value, table["gap", "clean"].n) == (twin["gap", "clean"].value, COUNT)
    assert table["gap", "fog"].value > table["gap", "clean"].value
    assert table["pair_cosine_change", "fog"].value == pytest.approx(-0.5, abs=1e-5)
