"""robustness/effective_robustness: the line by hand, a planted loss found, none in the twin, views of one thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.robustness.effective_robustness import SUITE, effective
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.core.mend import Mend, MendCard
from vlmend.errors import BadData

MEND = Mend((), MendCard("planted", {}, "scripted-dual", "", "", "", 0, {}, {}, ""))
NAMES = ("cat", "dog")


@dataclass(frozen=True, eq=False)
class Mended(ScriptedDual):
    """A scripted encoder under a mend, with what it was before."""

    before: ScriptedDual = field(default_factory=lambda: ScriptedDual({}, {}))

    @property
    def bare(self) -> ScriptedDual:
        return self.before


Named = dict[str, Sequence[bool]]


def world(before: Named, after: Named | None = None) -> tuple[ScriptedDual, Dataset]:
    """Pictures of cats and dogs by shift ("" is ordinary), each named right or not, before and after a mend."""
    rows: list[Example] = []
    seen: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    for place, shift in enumerate(before):
        for k in range(len(before[shift])):
            image, name = noise_image(4, 1000 * place + k), k % 2
            for images, right in zip(seen, (before, after or before), strict=True):
                images[image.digest] = torch.eye(2)[name if right[shift][k] else 1 - name]
            told = {"shift": shift, "of": f"{k}"} if shift else {}
            rows.append(Example(f"{k}{shift}", image=image, answers=(NAMES[name],), attributes=told))
    texts = {f"a photo of a {name}": torch.eye(2)[k] for k, name in enumerate(NAMES)}
    bare = ScriptedDual(seen[0], texts)
    return Mended(seen[1], texts, mends=(MEND,), before=bare) if after else bare, Dataset("pets", tuple(rows))


def found(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


def share(right: int, n: int = 40) -> list[bool]:
    return [k < right for k in range(n)]


def test_what_is_expected_by_hand() -> None:
    """Ordinary 20 to 30 of 40, shifted 20 to 20: expected is the share whose odds grew as those of ordinary ones did.

    With half a picture added to either side odds were 1 and are 30.5 / 10.5: expected under the shift are 30.5 / 41.
    """
    rows = [(float(b), float(b), float(a), float(b)) for b, a in zip(share(20), share(30), strict=True)]
    assert effective(rows, seed=0).value == pytest.approx((20.5 - 30.5) / 41, abs=1e-12)


def test_a_planted_loss_is_found_and_none_in_the_twin() -> None:
    """Fog right for 30 of 40 before, 10 after, ordinary ones as before: -0.5. The twin lost nothing."""
    before = {"": share(36), "fog": share(30)}
    faulty = found(*world(before, {"": share(36), "fog": share(10)}))["effective", "fog"]
    assert faulty.value == pytest.approx((10.5 - 30.5) / 41, abs=1e-12)
    assert faulty.high < 0
    twin = found(*world(before, dict(before)))["effective", "fog"]
    assert twin.value == pytest.approx(0, abs=1e-12)


def test_losing_as_much_everywhere_is_no_loss_of_robustness() -> None:
    """Both from 32 to 24 of 40: the odds shrank alike, so nothing is left."""
    table = found(*world({"": share(32), "fog": share(32)}, {"": share(24), "fog": share(24)}))
    assert table["effective", "fog"].value == pytest.approx(0, abs=1e-12)
    assert table["accuracy", "fog"].value == 0.6


def test_a_model_without_mends_has_accuracy_and_change_alone() -> None:
    table = found(*world({"": share(30), "fog": share(20)}))
    assert set(table) == {("accuracy", "clean"), ("accuracy", "fog"), ("change", "fog")}
    assert table["change", "fog"].value == pytest.approx(-0.25)
    assert table["accuracy", "clean"].floor == 0.5


@given(st.lists(st.tuples(*[st.booleans()] * 2), min_size=2, max_size=30))
def test_an_untouched_model_has_none(right: list[tuple[bool, bool]]) -> None:
    """Nothing changed: what is expected is what was there."""
    rows = [(float(a), float(b), float(a), float(b)) for a, b in right]
    assert effective(rows, seed=0).value == pytest.approx(0, abs=1e-12)


def test_several_views_of_one_thing_count_as_one_thing() -> None:
    target, data = world({"": share(3, 4), "fog": share(2, 4)})
    rows = [replace(row, attributes={**row.attributes, "of": "it"}) for row in data.examples]
    table = found(target, Dataset("one", tuple(rows)))
    assert table["change", "fog"].n == 1
    assert table["change", "fog"].value == pytest.approx(-0.25)
    assert math.isnan(table["change", "fog"].low)


def test_broken_pictures_and_shifts_without_their_twin_are_told() -> None:
    target, data = world({"": share(3, 4), "fog": share(2, 4)})
    told = {"shift": "fog", "of": "0"}
    broken = Example("bad", image=Image(b"no picture", "bad.jpg"), answers=("cat",), attributes=told)
    alone = tuple(row for row in data.examples if row.attributes.get("shift"))
    table = found(target, Dataset("some", (*data.examples, broken)))
    assert (table["accuracy", "fog"].n, table["accuracy", "fog"].unscored) == (4, 1)
    assert set(found(target, Dataset("alone", alone))) == {("accuracy", "fog")}
    with pytest.raises(BadData, match="nothing can be taken for another"):
        SUITE.samples(target, Dataset("one", data.examples[:1]), None, seed=0)
