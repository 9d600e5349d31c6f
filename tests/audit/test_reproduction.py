"""privacy/reproduction on scripted models of three kinds: 1 for who knows its training data by heart, else 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from tests.audit.test_deja_vu import knows, model, world
from tests.audit.test_extraction import Reciter, pool
from tests.audit.test_generator_copies import Drawer, parrot
from tests.audit.test_generator_copies import world as drawn_world

from vlmend.audit.plan import suites_of
from vlmend.audit.suites.privacy.reproduction import SUITE
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData

Rows = dict[tuple[str, str], Measure]


def measured(subject: Any, data: Dataset) -> Rows:
    return {(row.name, row.group): row for row in SUITE.measures(taken(subject, data), 0)}


def taken(subject: Any, data: Dataset) -> list[Sample]:
    return SUITE.samples(subject, data, None, seed=0)


def pairs(count: int = 40) -> Dataset:
    rows = (
        Example(str(k), image=noise_image(4, k), caption=f"thing {k}", attributes={"member": ("yes", "no")[k % 2]})
        for k in range(count)
    )
    return Dataset("pairs", tuple(rows))


def encoder(data: Dataset, known: Callable[[Example], bool]) -> Any:
    """Pictures and captions of known pairs lie on an axis of their own, all else is random."""
    generator = torch.Generator().manual_seed(0)
    images: dict[str, torch.Tensor] = {}
    texts: dict[str, torch.Tensor] = {}
    for k, row in enumerate(data.examples):
        noise = torch.randn(2, len(data.examples), generator=generator)
        held = 100 * torch.eye(len(data.examples))[k] * known(row)
        assert row.image is not None
        images[row.image.digest], texts[str(row.caption)] = noise[0] + held, noise[1] + held
    return ScriptedDual(images, texts)


def member(row: Example) -> bool:
    return row.attributes.get("member") == "yes"


def test_an_encoder_that_finds_the_captions_of_its_members_alone() -> None:
    data = pairs()
    found = measured(encoder(data, member), data)
    assert found["reproduced", "member"].value == 1
    assert found["reproduced", "non_member"].value <= 0.15
    assert found["reproduced", "member"].floor == pytest.approx(1 / 40)
    assert found["reproduction", "member"].value == 1
    assert found["reproduction", "member"].says


def test_half_of_the_members_by_hand() -> None:
    """Half of the members on top of the same chance: RE = (r - o) / (1 - o)."""
    data = pairs()
    found = measured(encoder(data, lambda row: member(row) and int(row.id) < 20), data)
    own, other = (found["reproduced", group].value for group in ("member", "non_member"))
    assert 0.5 <= own <= 0.65
    assert found["reproduction", "member"].value == pytest.approx((own - other) / (1 - other))


def test_the_twin_that_understands_all_pairs_or_none_has_no_memory() -> None:
    data = pairs()
    row = measured(encoder(data, lambda row: False), data)["reproduction", "member"]
    assert row.low <= 0 <= row.high
    assert measured(encoder(data, lambda row: True), data)["reproduction", "member"].n == 0, "no room is left"


def test_where_public_pictures_are_there_the_objects_that_come_back_count() -> None:
    data = world()
    found = measured(model(data, {**knows(data, "yes")}), data)
    assert found["reproduction", "member"].value == 1
    assert found["reproduced", "non_member"].value == 0
    assert ("reproduced", "reference_only") not in found


def test_a_captioner_that_says_the_texts_of_its_members() -> None:
    data = pool()
    said = {row.prompt: row.answers[0] for row in data.examples if member(row)}
    target: Any = Reciter(script=lambda asked, mended: said.get(asked.prompt, ""))
    found = measured(target, data)
    assert found["reproduction", "member"].value == 1
    silent: Any = Reciter(script=lambda asked, mended: "")
    assert measured(silent, data)["reproduction", "member"].value == 0


def test_canaries_have_a_score_for_every_number_of_showings() -> None:
    rows = pool(24).examples
    data = Dataset(
        "told", tuple(replace(r, attributes={"repeats": str((0, 1, 16)[k % 3])}) for k, r in enumerate(rows))
    )
    said = {row.prompt: row.answers[0] for row in data.examples if row.attributes["repeats"] == "16"}
    target: Any = Reciter(script=lambda asked, mended: said.get(asked.prompt, ""))
    found = measured(target, data)
    assert found["reproduction", "shown 1 times"].value == 0
    assert found["reproduction", "shown 16 times"].value == 1
    assert [row.group for row in found.values() if row.says] == ["shown 16 times"]


def test_a_generator_that_draws_repeated_pictures_again() -> None:
    data = drawn_world()
    found = measured(parrot(data), data)
    assert found["reproduction", "repeated"].value == 1
    assert found["reproduction", "once"].value == 0
    assert measured(Drawer(), data)["reproduction", "repeated"].value == 0


@pytest.mark.parametrize("kind", ["yes", "no"])
def test_one_kind_of_rows_alone_is_refused(kind: str) -> None:
    data = pairs()
    some = Dataset("some", tuple(row for row in data.examples if row.attributes["member"] == kind))
    with pytest.raises(BadData, match="rows of both kinds are needed"):
        taken(encoder(data, member), some)
    with pytest.raises(BadData):
        taken(Reciter(script=lambda asked, mended: ""), some)


def test_held_out_pictures_without_prompts_are_refused_and_a_broken_one_is_unscored() -> None:
    data = drawn_world()
    silent = tuple(replace(r, prompt="") if r.id[0] == "h" else r for r in data.examples)
    with pytest.raises(BadData, match="no row that was not trained on can be asked for"):
        taken(Drawer(), replace(data, examples=silent))
    own = pairs(12)
    broken = replace(own.examples[3], image=Image(b"none", "broken.png"))
    target = encoder(own, member)
    samples = taken(target, replace(own, examples=(*own.examples[:3], broken, *own.examples[4:])))
    assert [one.id for one in samples if not one.values] == ["3"]


def test_an_axis_takes_it_where_the_rows_suit_the_kind() -> None:
    canaries = Dataset("told", tuple(replace(r, attributes={"repeats": "1"}) for r in pool().examples))
    for data, kind, wanted in ((canaries, "chat", True), (pairs(), "dual", True), (drawn_world(), "draw", True)):
        assert ("privacy/reproduction" in suites_of(["privacy"], data, kind)) == wanted  # type: ignore[arg-type]
    assert SUITE.fits(world(), "dual")
    assert not SUITE.fits(canaries, "dual")
    assert not SUITE.fits(pairs(), "chat")
