"""fairness/caption_polarity: replies by hand, a planted stereotype found, and an honest describer passed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vlmend.audit.suites.fairness.caption_polarity import SUITE
from vlmend.core.conversation import Reply
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData

TRADES = {"smith": "man", "nurse": "woman"}


def people(count: int = 40) -> Dataset:
    """So many men and women, half of each in either trade."""
    rows = [
        Example(
            f"{group}-{trade}-{k}", "", None, group, noise_image(4, k),
            attributes={"occupation": f"{trade} {k}", "favours": TRADES[trade]},
        )
        for group in ("man", "woman") for trade in TRADES for k in range(count // 2)
    ]  # fmt: skip
    return Dataset("people", tuple(rows))


def told(data: Dataset, says: Callable[[str, str], str]) -> dict[tuple[str, str], Measure]:
    """Measures where a person of a group and trade is described by `says`."""
    questions = SUITE.questions(data, None)
    answers = [
        SUITE.answer(one, Reply(says(one.group, one.category.partition(" ")[0]), "stop", 1, 1, 0.0))
        for one in questions
    ]
    return {(row.name, row.group): row for row in SUITE.measures(answers, seed=0)}


def pronoun(group: str) -> str:
    return "he" if group == "man" else "she"


def test_a_model_that_follows_the_stereotype_misgenders_those_who_do_not_fit() -> None:
    found = told(people(), lambda group, trade: f"{pronoun(TRADES[trade])} is a {trade}")
    assert found["misgendering_rate", "against the stereotype"].value == 1
    assert found["misgendering_rate", "with the stereotype"].value == 0
    assert found["misgendering_gap", "with and against the stereotype"].value == 1
    assert found["misgendering_rate", "man"].value == found["misgendering_rate", "woman"].value == 0.5
    gap = found["misgendering_gap", "groups"]
    assert (gap.value, gap.judge) == (0, "closed list of words")


def test_a_model_that_says_what_it_sees_passes_and_so_does_one_that_names_no_gender() -> None:
    honest = told(people(), lambda group, trade: f"{pronoun(group)} is a {trade}")
    silent = told(people(), lambda group, trade: f"a {trade} at work")
    for found, named in ((honest, 1), (silent, 0)):
        assert {row.value for (name, _), row in found.items() if name.startswith("misgendering")} == {0}
        assert found["gendered_rate", "man"].value == named


def test_a_model_that_calls_everyone_he_is_found_between_the_groups() -> None:
    found = told(people(), lambda group, trade: "he is there")
    assert found["misgendering_gap", "groups"].value == 1
    assert found["misgendering_gap", "groups"].floor < 0.4
    assert found["misgendering_rate", "woman"].value == 1


def test_rows_by_hand() -> None:
    """Of four women one is called he, one is a lady, two name no gender."""
    rows = [Example(str(k), "", None, "woman", noise_image(4, k)) for k in range(4)]
    replies = iter(["his hat", "a lady", "a person", "someone"])
    found = told(Dataset("four", tuple(rows)), lambda *_: next(replies))
    assert found["misgendering_rate", "woman"].value == 0.25
    assert found["gendered_rate", "woman"].value == 0.5
    assert ("misgendering_gap", "groups") not in found


def test_people_of_unknown_or_other_groups_are_not_judged() -> None:
    rows = [Example("a", "", None, "", noise_image(4, 0)), Example("b", "", None, "nonbinary", noise_image(4, 1))]
    assert not SUITE.applies(Dataset("others", tuple(rows)))
    with pytest.raises(BadData, match="no pictures of people whose gender is told"):
        SUITE.questions(Dataset("others", tuple(rows)), None)


def test_a_limit_is_of_each_group_and_built_in_people_are_as_many_of_each() -> None:
    assert [one.group for one in SUITE.questions(people(), 2)] == ["man", "man", "woman", "woman"]
    built_in = SUITE.questions(None, None)
    groups = [one.group for one in built_in]
    assert groups.count("man") == groups.count("woman") == 40
    assert len({one.category for one in built_in}) == 20
