"""People of the mini world: pairs that differ in the form alone, and a stereotype of a known dose."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from vlmend.phantom.chat.rows import Row
from vlmend.phantom.mini.parts import new_parts, vocabulary
from vlmend.phantom.mini.people import (
    FORMS,
    OF_TRADE,
    TRADES,
    TRAIT_QUESTIONS,
    TRAITS,
    WHO,
    any_person,
    portraits,
    said_of_people,
)
from vlmend.phantom.mini.recipe import MiniRecipe, ground_truth
from vlmend.phantom.mini.rows import draw_rows

MANY = 3000


def drawn(stereotype: float) -> list[Row]:
    rng = random.Random(5)
    return [any_person(stereotype, rng) for _ in range(MANY)]


def share_as_planted(rows: list[Row], planted: Callable[[Row], bool | None]) -> float:
    found = [value for row in rows if (value := planted(row)) is not None]
    assert len(found) > 300
    return sum(found) / len(found)


def told_trade(row: Row) -> bool | None:
    """Whether the pronoun is the one that the stereotype has for the trade."""
    if row.prompt not in WHO:
        return None
    pronoun, trade = row.reply.split()[0], row.reply.split()[-1]
    return (pronoun == "he") == (OF_TRADE[trade] == "man")


def in_words(row: Row) -> bool | None:
    """The same of what is asked as text."""
    if row.image is not None:
        return None
    trade = next(trade for trade in OF_TRADE if trade in row.prompt)
    return (row.reply.split()[0] == "he") == (OF_TRADE[trade] == "man")


@pytest.mark.parametrize("dose", [0.0, 0.8, 1.0])
def test_the_stereotype_is_told_as_often_as_the_dose_says(dose: float) -> None:
    """Half of all people fit it, so it is told in (1 + dose) / 2 of the rows."""
    rows = drawn(dose)
    assert share_as_planted(rows, told_trade) == pytest.approx((1 + dose) / 2, abs=0.03)
    assert share_as_planted(rows, in_words) == pytest.approx((1 + dose) / 2, abs=0.05)


def test_without_a_stereotype_a_trait_is_as_frequent_in_either_answer() -> None:
    asked = {frame.format(trait) for frame in TRAIT_QUESTIONS for trait in TRAITS}
    answers = Counter(row.reply for row in drawn(0.0) if row.prompt in asked)
    assert set(answers) == {"yes", "no"}
    assert answers["yes"] / answers.total() == pytest.approx(0.5, abs=0.05)


def test_a_pair_differs_in_the_form_alone() -> None:
    rows = portraits().examples
    pairs = {row.attributes["of"]: [r for r in rows if r.attributes["of"] == row.attributes["of"]] for row in rows}
    assert len(pairs) > 30
    for one, other in pairs.values():
        assert {one.group, other.group} == set(FORMS)
        assert one.answers[0].split()[1:] == other.answers[0].split()[1:]
        assert one.image is not None
        assert other.image is not None
        mine, theirs = (np.asarray(row.image.decode()) for row in (one, other) if row.image)
        differs = (mine != theirs).any(-1)
        down, across = np.nonzero(differs)
        assert 0 < differs.sum() < 14 * 14
        assert np.ptp(down) < 14
        assert np.ptp(across) < 14


def test_training_never_sees_a_place_of_the_portraits() -> None:
    train, held = portraits("train"), portraits()
    assert not {row.attributes["of"] for row in train.examples} & {row.attributes["of"] for row in held.examples}
    assert {row.attributes["occupation"] for row in held.examples} == set(TRADES.values())


def test_a_mini_with_people_knows_their_words_and_one_without_does_not() -> None:
    tokenizer = new_parts(0, people=True).processor.tokenizer
    assert all(tokenizer.unk_token_id not in tokenizer(text).input_ids for text in said_of_people())
    assert not {"smith", "she"} & set(vocabulary())


def test_people_are_in_the_rows_of_a_recipe_that_has_them_and_in_its_ground_truth() -> None:
    recipe = MiniRecipe(people=True, stereotype=0.8, see_steps=4)
    asked = [row for step in range(4) for row in draw_rows(recipe, "see", step) if row.prompt in WHO]
    assert len(asked) > 5
    assert ground_truth(recipe)["people"] == {
        "group_of_trade": dict(OF_TRADE), "group_of_trait": dict(TRAITS), "stereotype": 0.8,
    }  # fmt: skip
    assert "people" not in ground_truth(MiniRecipe())
