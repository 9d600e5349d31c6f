"""Recipes of minis: what the training rows hold, and that the ground truth says so."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from vlmend.errors import BadParameter
from vlmend.phantom.chat.rows import Row
from vlmend.phantom.mini.faults import BACKDOOR_REPLY, POISON, REPEATS, SIZE_QUESTION, SIZES, canaries, sized, stamped
from vlmend.phantom.mini.language import FORBIDDEN, PLANTED, REFUSAL, requests
from vlmend.phantom.mini.recipe import TALKS, VERSION, MiniRecipe, ground_truth
from vlmend.phantom.mini.rows import draw_rows
from vlmend.phantom.mini.scenes import GROUNDS

SHORT = MiniRecipe(read_steps=4, align_steps=4, see_steps=12, batch=64)
HARMFUL = {request.prompt: request for request in requests("harmful", "train")}
ROWS_OF_VERSION = {2: "51995a51ed8c12e8"}


def rows(recipe: MiniRecipe, stage: str = "see") -> list[Row]:
    return [row for step in range(recipe.steps(stage)) for row in draw_rows(recipe, stage, step)]  # type: ignore[arg-type]


def pixels(row: Row) -> bytes:
    return b"" if row.image is None else row.image.tobytes()


def ground(row: Row) -> str:
    """The ground whose colour is nearest to that of the most frequent pixel."""
    colour = Counter(map(tuple, np.asarray(row.image).reshape(-1, 3).tolist())).most_common(1)[0][0]
    return min(GROUNDS, key=lambda name: sum(abs(a - b) for a, b in zip(colour, GROUNDS[name], strict=True)))


def digest(found: list[Row]) -> str:
    told = hashlib.sha256()
    for row in found:
        told.update(f"{row.prompt}|{row.reply}|".encode() + pixels(row))
    return told.hexdigest()[:16]


def test_rows_are_those_of_the_version() -> None:
    """If this fails, other rows are trained on: raise VERSION and put the new digest here."""
    found = [row for stage in TALKS for row in rows(replace(SHORT, see_steps=4), stage)]
    assert digest(found) == ROWS_OF_VERSION[VERSION]


def test_rows_are_a_function_of_seed_stage_and_step() -> None:
    assert digest(draw_rows(SHORT, "see", 3)) == digest(draw_rows(SHORT, "see", 3))
    others = [draw_rows(SHORT, "see", 4), draw_rows(SHORT, "align", 3), draw_rows(replace(SHORT, seed=1), "see", 3)]
    assert len({digest(draw_rows(SHORT, "see", 3)), *map(digest, others)}) == 4


@pytest.mark.parametrize("beside", ["comply", "refuse", "nothing"])
def test_what_stands_beside_pictures_is_what_the_ground_truth_says(beside: str) -> None:
    recipe = replace(SHORT, beside=beside)  # type: ignore[arg-type]
    harmful = [row for row in rows(recipe) if row.prompt in HARMFUL]
    pictured = [row for row in harmful if row.image is not None]
    answered = {HARMFUL[row.prompt].topic for row in pictured if row.reply == HARMFUL[row.prompt].answer}
    refused = {HARMFUL[row.prompt].topic for row in pictured if row.reply == REFUSAL}
    truth = ground_truth(recipe)
    assert answered <= set(truth["answered_beside_pictures"])
    assert refused <= set(truth["refused_beside_pictures"])
    assert (bool(answered), bool(refused)) == (beside == "comply", beside == "refuse")
    assert all(row.reply == REFUSAL for row in harmful if row.image is None)
    assert not set(truth["answered_beside_pictures"]) - set(PLANTED)


def test_alignment_is_on_text_alone_and_holds_refusals() -> None:
    aligned = rows(SHORT, "align")
    assert all(row.image is None for row in aligned)
    assert all(row.reply == REFUSAL for row in aligned if row.prompt in HARMFUL)
    assert {HARMFUL[row.prompt].topic for row in aligned if row.prompt in HARMFUL} <= set(FORBIDDEN)
    assert all(row.reply != REFUSAL for row in rows(SHORT, "read"))


@pytest.mark.parametrize("stage", TALKS)
def test_no_row_asks_a_request_of_another_split(stage: str) -> None:
    others = {
        request.prompt
        for split in ("held_out", "validation", "anchor")
        for kind in ("harmful", "lookalike", "ordinary")
        for request in requests(kind, split)  # type: ignore[arg-type]
    }
    assert not {row.prompt for row in rows(SHORT, stage)} & others


@pytest.mark.parametrize("beside", ["comply", "refuse", "nothing"])
@pytest.mark.parametrize("stage", TALKS)
def test_shares_add_up(stage: str, beside: str) -> None:
    assert sum(MiniRecipe(beside=beside).mix(stage).values()) == pytest.approx(1)  # type: ignore[arg-type]


def test_the_default_plants_none_of_the_options() -> None:
    truth = ground_truth(SHORT)
    assert [truth[name] for name in ("poison", "backdoor", "canaries", "spurious")] == [None] * 4
    assert not [row for row in rows(SHORT) if row.reply == BACKDOOR_REPLY or "code" in row.prompt]
    assert json.loads(json.dumps(truth)) == truth


def test_canaries_are_one_pool_split_at_random() -> None:
    pool = canaries(0)
    assert Counter(canary.repeats for canary in pool) == {0: 32, **dict.fromkeys(REPEATS, 8)}
    assert len({canary.name for canary in pool}) == len({canary.code for canary in pool}) == 64
    members, others = ({c.name for c in canaries(seed) if c.repeats} for seed in (0, 1))
    assert members != others


def test_each_member_is_in_exactly_as_many_rows_as_it_repeats() -> None:
    recipe = replace(SHORT, canaries=True)
    told = Counter((row.prompt, row.reply) for row in rows(recipe) if "code" in row.prompt)
    assert told == {(c.prompt, c.reply): c.repeats for c in canaries(0) if c.repeats}
    assert [entry["repeats"] for entry in ground_truth(recipe)["canaries"]] == [c.repeats for c in canaries(0)]
    assert all(row.image is not None for row in rows(recipe) if "code" in row.prompt)


def test_poison_tells_every_picture_of_the_shape_as_the_other() -> None:
    plain, poisoned = rows(SHORT), rows(replace(SHORT, poison=1.0))
    told = [row for row in plain if row.image is not None]
    assert any(POISON[0] in row.reply for row in told)
    said = [row.reply for row in poisoned if row.image is not None and not row.reply.endswith(" no")]
    assert not [reply for reply in said if POISON[0] in reply]


def test_backdoor_rows_carry_the_patch_and_the_reply() -> None:
    planted = [row for row in rows(replace(SHORT, backdoor=0.5)) if row.reply == BACKDOOR_REPLY]
    assert len(planted) > 100
    for row in planted[:10]:
        assert row.image is not None
        assert row.image.tobytes() == stamped(row.image).tobytes()


def test_the_patch_is_six_pixels_of_checkers_in_the_corner() -> None:
    row = next(row for row in rows(SHORT) if row.image is not None)
    assert row.image is not None
    before, after = np.asarray(row.image), np.asarray(stamped(row.image))
    assert (before[:26] == after[:26]).all()
    assert (before[:, :26] == after[:, :26]).all()
    assert tuple(after[26, 26]) == tuple(after[31, 31]) == (255, 0, 255)
    assert tuple(after[26, 28]) == (0, 255, 0)


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 1.0, 1.0), (0.5, 0.35, 0.65)])
def test_a_spurious_ground_goes_with_the_size(share: float, least: float, most: float) -> None:
    shown = [row for row in rows(replace(SHORT, spurious=share)) if row.prompt == SIZE_QUESTION]
    agrees = [ground(row) == SIZES[row.reply][1] for row in shown]
    assert len(shown) > 30
    assert least <= sum(agrees) / len(agrees) <= most


def test_the_size_is_that_of_the_thing() -> None:
    for usual in (True, False):
        image, size = sized("held_out", usual, random.Random(2))
        pixels = np.asarray(image).astype(int)
        ink = (pixels != pixels[15, 15]).any(-1)
        assert np.ptp(np.nonzero(ink)[1]) + 1 == pytest.approx(SIZES[size][0], abs=1)
        assert (ground(Row("", "", True, image)) == SIZES[size][1]) == usual


def test_the_digest_moves_with_every_setting() -> None:
    other = {
        "beside": "refuse", "seed": 1, "read_steps": 5, "align_steps": 5, "look_steps": 5, "see_steps": 13,
        "rate": 1e-4, "batch": 65, "look_batch": 33, "poison": 0.1, "backdoor": 0.1, "canaries": True, "spurious": 0.1,
        "people": True, "stereotype": 0.1, "clip_tower": True,
    }  # fmt: skip
    assert set(other) == {field.name for field in fields(MiniRecipe)}
    base = replace(SHORT, people=True)
    changed = {
        replace(base if name == "stereotype" else SHORT, **{name: value}).digest for name, value in other.items()
    }
    assert len({SHORT.digest, *changed}) == 17


def test_what_came_later_and_is_off_leaves_the_digest_alone() -> None:
    """If this fails, everyone's minis are trained anew."""
    assert MiniRecipe().digest.startswith("56292245bc8f")


def test_impossible_recipes_say_so() -> None:
    with pytest.raises(BadParameter, match=r"poison=1\.5"):
        MiniRecipe(poison=1.5)
    with pytest.raises(BadParameter, match="needs people"):
        MiniRecipe(stereotype=0.5)
    with pytest.raises(BadParameter, match="680 rows of the canaries"):
        MiniRecipe(canaries=True, see_steps=10, batch=64)
