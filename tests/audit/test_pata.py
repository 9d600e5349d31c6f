"""fairness/pata on planted scenes: good words that find one group are found, and nothing where nothing is planted."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness.pata import CHOICE, CHOICE_GAP, LEAN, MAX, MIN, SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.data.connotations import ABOUT, BAD, CONNOTATION, GOOD, SCENE, people_and_connotations
from vlmend.errors import BadData

SCENES = 12


def world(lean: float, seed: int = 0) -> tuple[ScriptedDual, Dataset]:
    """Scenes of ten men and ten women; the good text of each leans to men by `lean`, the bad one to women."""
    generator = torch.Generator().manual_seed(seed)
    images: dict[str, torch.Tensor] = {}
    texts: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for scene in range(SCENES):
        told = {SCENE: f"scene {scene}"}
        for k in range(20):
            image, gender = noise_image(4, 100 * scene + k), ("man", "woman")[k % 2]
            vector = torch.cat([torch.tensor([1.0 if gender == "man" else -1.0]), torch.randn(8, generator=generator)])
            images[image.digest] = vector
            rows.append(Example(f"{scene}-{k}", image=image, attributes={**told, "gender": gender}))
        for word, sign in ((GOOD, 1.0), (BAD, -1.0)):
            text = f"{word} {scene}"
            texts[text] = torch.cat([torch.tensor([sign * lean]), torch.randn(8, generator=generator)])
            rows.append(Example(text, text, attributes={**told, ABOUT: "gender", CONNOTATION: word}))
    return ScriptedDual(images, texts), Dataset("scenes", tuple(rows))


def measured(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


@cache
def found(lean: float) -> dict[tuple[str, str], Measure]:
    return measured(*world(lean))


def test_a_planted_association_is_found_with_its_sign() -> None:
    """With a lean that drowns all else the first ten are of one group: ln 2 for it, ln(1/20 over 1/2) for the other."""
    rows = found(100.0)
    assert rows[MAX, "gender: good texts"].value == pytest.approx(math.log(2))
    assert rows[MIN, "gender: bad texts"].value == pytest.approx(math.log(0.05 / 0.5))
    apart = math.log(2) - math.log(0.05 / 0.5)
    assert rows[LEAN, "gender: man"].value == pytest.approx(apart)
    assert rows[LEAN, "gender: woman"].value == pytest.approx(-apart)
    assert rows[CHOICE, "chosen by gender: man"].value == 1.0
    assert rows[CHOICE, "chosen by gender: man"].floor == 0.5
    assert rows[CHOICE_GAP, "gender"].value == 1.0


def test_a_dose_is_found_in_its_order() -> None:
    leans = [found(lean)[LEAN, "gender: man"].value for lean in (0.0, 2.0, 8.0)]
    assert leans[0] < leans[1] < leans[2]
    assert found(2.0)[LEAN, "gender: man"].low > 0


def test_nothing_is_found_where_nothing_is_planted() -> None:
    rows = found(0.0)
    assert rows[LEAN, "gender: man"].low < 0 < rows[LEAN, "gender: man"].high
    assert rows[MAX, "gender: good texts"].low < rows[MAX, "gender: good texts"].floor
    assert rows[CHOICE_GAP, "gender"].low < rows[CHOICE_GAP, "gender"].floor


def test_groups_dealt_inside_a_scene_leave_the_floor() -> None:
    """The labels of a strongly leaning world, shuffled within each scene."""
    target, data = world(100.0)
    generator = torch.Generator().manual_seed(3)
    rows = list(data.examples)
    for scene in range(SCENES):
        places = [k for k, row in enumerate(rows) if row.image and row.attributes[SCENE] == f"scene {scene}"]
        order = torch.randperm(len(places), generator=generator).tolist()
        genders = [rows[places[k]].attributes["gender"] for k in order]
        for place, gender in zip(places, genders, strict=True):
            rows[place] = replace(rows[place], attributes={**rows[place].attributes, "gender": gender})
    row = measured(target, Dataset("dealt", tuple(rows)))[LEAN, "gender: man"]
    assert row.low < 0 < row.high


def test_good_and_bad_swapped_swap_the_two_numbers() -> None:
    target, data = world(2.0)
    other = {GOOD: BAD, BAD: GOOD}
    swapped = tuple(
        replace(row, attributes={**row.attributes, CONNOTATION: other[row.attributes[CONNOTATION]]})
        if CONNOTATION in row.attributes
        else row
        for row in data.examples
    )
    rows = measured(target, Dataset("swapped", swapped))
    assert rows[MAX, "gender: good texts"].value == pytest.approx(found(2.0)[MAX, "gender: bad texts"].value)
    assert rows[LEAN, "gender: man"].value == pytest.approx(-found(2.0)[LEAN, "gender: man"].value)


def test_a_scene_that_says_nothing_is_a_row_without_score() -> None:
    """One scene has too few pictures of known gender, another men alone."""
    target, data = world(2.0)
    rows = tuple(
        replace(row, attributes={**row.attributes, "gender": "unknown" if int(row.id.partition("-")[2]) > 4 else "man"})
        if row.image and row.attributes[SCENE] == "scene 0"
        else row
        for row in data.examples
        if not (row.image and row.attributes[SCENE] == "scene 1" and row.attributes["gender"] == "woman")
    )
    one_sided = tuple(replace(row, id=f"{row.id}+") for row in rows if row.image and row.attributes[SCENE] == "scene 1")
    samples = SUITE.samples(target, Dataset("few", (*rows, *one_sided)), None, seed=0)
    reasons = {sample.cluster: sample.reason for sample in samples if sample.reason}
    assert "5 pictures of known gender" in reasons["scene 0"]
    assert reasons["scene 1"] == "all of its pictures are of one gender"
    row = {(m.name, m.group): m for m in SUITE.measures(samples, 0)}[MAX, "gender: good texts"]
    assert (row.n, row.unscored) == (SCENES - 2, 2)


def test_a_broken_picture_ends_nothing() -> None:
    target, data = world(2.0)
    broken = replace(data.examples[0], image=Image(b"none", "broken"))
    samples = SUITE.samples(target, Dataset("broken", (broken, *data.examples[1:])), None, seed=0)
    assert [sample.cluster for sample in samples if sample.group == "cannot be read"] == [broken.id]


def test_inferred_groups_are_refused() -> None:
    target, data = world(2.0)
    rows = tuple(replace(row, attributes={**row.attributes, "groups_by": "model"}) for row in data.examples)
    with pytest.raises(BadData, match="a model inferred"):
        SUITE.samples(target, Dataset("guessed", rows), None, seed=0)


def test_texts_of_both_connotations_are_needed() -> None:
    target, data = world(2.0)
    rows = tuple(row for row in data.examples if row.attributes.get(CONNOTATION) != BAD)
    with pytest.raises(BadData, match="no scene with pictures, good texts and bad texts"):
        SUITE.samples(target, Dataset("half", rows), None, seed=0)
    assert not SUITE.applies(Dataset("none", tuple(row for row in data.examples if row.image)))


def test_built_in_scenes_are_about_gender_and_tone() -> None:
    data = people_and_connotations("held_out")
    texts = [row for row in data.examples if row.image is None]
    assert {(row.attributes[ABOUT], row.attributes[CONNOTATION]) for row in texts} == {
        (about, word) for about in ("gender", "tone") for word in (GOOD, BAD)
    }
    assert len({row.attributes[SCENE] for row in texts}) == 20
    assert any(row.prompt == "a photo of a clumsy cook" for row in texts)
