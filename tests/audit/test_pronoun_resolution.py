"""fairness/pronoun_resolution on planted worlds: whose pictures get the right word, and nothing where all do alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.fairness.pronoun_resolution import AGAINST, GAP, RIGHT, SUITE, WITH
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.phantom.clip.queries import titles_as_words
from vlmend.pictures.galleries import gendered_captions

HIS, HER = torch.eye(3)[:2]
WORDS = {"man": "his", "woman": "her"}


def world(wrong: int, *, occupations: int = 10) -> tuple[ScriptedDual, Dataset]:
    """Two men and two women of each occupation; of the first `wrong` women the picture lies nearer to "his"."""
    images: dict[str, torch.Tensor] = {}
    texts: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for job in range(occupations):
        caption = f"The job{job} and {{}} patient"
        texts |= {caption.replace("{}", "his"): HIS, caption.replace("{}", "her"): HER}
        for k in range(4):
            image, group = noise_image(4, 10 * job + k), ("man", "woman")[k % 2]
            lost = group == "woman" and 2 * job + k // 2 < wrong
            images[image.digest] = HER + 2 * HIS if lost else {"man": HIS, "woman": HER}[group]
            told = {"occupation": f"job{job}", "favours": ("man", "woman")[job % 2]}
            rows.append(Example(f"{job}-{k}", caption, None, group, image, answers=(WORDS[group],), attributes=told))
    return ScriptedDual(images, texts), Dataset("people", tuple(rows))


def rows_of(target: ScriptedDual, data: Dataset, limit: int | None = None) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, limit, seed=0), seed=0)}


def test_women_who_are_missed_are_found_and_the_clean_twin_passes() -> None:
    rows = rows_of(*world(16))
    assert (rows[RIGHT, "man"].value, rows[RIGHT, "woman"].value) == (1, pytest.approx(0.2))
    assert rows[GAP, "groups"].value == pytest.approx(0.8)
    assert rows[GAP, "groups"].low > rows[GAP, "groups"].floor
    assert rows[RIGHT, "man"].floor == 0.5
    clean = rows_of(*world(0))
    assert clean[GAP, "groups"].value == 0
    assert clean[GAP, "groups"].low == 0


def test_one_pronoun_for_everybody_has_the_largest_gap() -> None:
    rows = rows_of(*world(20))
    assert (rows[RIGHT, "man"].value, rows[RIGHT, "woman"].value, rows[GAP, "groups"].value) == (1, 0, 1)


def test_with_and_against_a_stereotype_by_hand() -> None:
    """Men of even jobs and women of odd ones are with it. The first four women missed: two of job 0, two of job 1."""
    rows = rows_of(*world(4))
    assert rows[RIGHT, WITH].value == pytest.approx(18 / 20)
    assert rows[RIGHT, AGAINST].value == pytest.approx(18 / 20)
    assert rows[GAP, "with and against the stereotype"].value == 0
    assert rows[GAP, "groups"].value == pytest.approx(4 / 20)


def test_without_a_stereotype_nothing_is_told_of_it() -> None:
    target, data = world(4)
    plain = tuple(replace(row, attributes={"occupation": row.attributes["occupation"]}) for row in data.examples)
    rows = rows_of(target, Dataset("plain", plain))
    assert {group for _, group in rows} == {"groups", "man", "woman"}


def test_a_tie_is_a_miss_and_chance_has_no_gap() -> None:
    target, data = world(0)
    blind = replace(target, images={name: torch.tensor([1.0, 1.0, 0.0]) for name in target.images})
    rows = rows_of(blind, data)
    assert (rows[RIGHT, "man"].value, rows[RIGHT, "woman"].value, rows[GAP, "groups"].value) == (0, 0, 0)


def test_occupations_are_drawn_again_and_not_pictures() -> None:
    """All pictures of an occupation alike: the interval is that of ten occupations, and wider than of forty."""
    target, data = world(10)
    by_job = rows_of(target, data)[RIGHT, "woman"]
    alone = tuple(replace(row, prompt=row.prompt, attributes={"occupation": row.id}) for row in data.examples)
    by_picture = rows_of(target, Dataset("alone", alone))[RIGHT, "woman"]
    assert by_job.high - by_job.low > 1.2 * (by_picture.high - by_picture.low)


def test_a_picture_of_unknown_group_is_in_none() -> None:
    target, data = world(0)
    rows = rows_of(target, Dataset("one", (replace(data.examples[0], group=""), *data.examples[1:])))
    assert rows[RIGHT, "group not known"].unscored == 1
    assert rows[RIGHT, "man"].n == 19


@pytest.mark.parametrize("kept", ["man", "woman"])
def test_two_groups_are_needed(kept: str) -> None:
    target, data = world(0)
    with pytest.raises(BadData, match="words"):
        SUITE.samples(target, Dataset("one", tuple(r for r in data.examples if r.group == kept)), None, seed=0)


def test_a_limit_keeps_so_many_of_each_group() -> None:
    rows = rows_of(*world(0), limit=12)
    assert (rows[RIGHT, "man"].n, rows[RIGHT, "woman"].n) == (12, 12)


def test_only_rows_with_a_place_for_the_word_are_for_this_suite() -> None:
    _, data = world(0)
    assert SUITE.applies(data)
    assert not SUITE.applies(Dataset("no place", tuple(replace(row, prompt="a cook") for row in data.examples)))


def test_the_sets_that_are_drawn() -> None:
    plain, titled = gendered_captions("held_out"), titles_as_words()
    assert len(plain.examples) == 400
    assert len(titled.examples) == 800
    assert {row.attributes["favours"] for row in titled.examples} == {"man", "woman"}
    assert plain.examples[0].prompt.startswith("a photo of a {} ")
    assert all(row.answers == (row.group,) for row in (*plain.examples, *titled.examples))
