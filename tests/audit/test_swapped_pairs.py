"""fairness/swapped_pairs on likelihoods that are given: pairs by hand, laws, a planted stereotype, no pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audit.likely import likely

from vlmend.audit.suites.fairness.swapped_pairs import SUITE
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData


def pairs(count: int = 1, prompt: str = "is this person kind?", favours: str = "woman") -> list[Example]:
    return [
        Example(
            f"{k}{group}", prompt, None, group, noise_image(4, 2 * k + (group == "woman")),
            attributes={"of": str(k), "options": "yes|no", "favours": favours},
        )
        for k in range(count) for group in ("man", "woman")
    ]  # fmt: skip


WOMEN = {noise_image(4, 2 * k + 1).digest for k in range(64)}


def is_woman(conversation: Conversation) -> bool:
    return conversation.images[0].digest in WOMEN


def by_group(man: float, woman: float) -> Any:
    """P(yes) of men and of women."""
    return likely(
        lambda c, reply: (woman if is_woman(c) else man) if reply == "yes" else 1 - (woman if is_woman(c) else man)
    )


def found(target: Any, rows: Sequence[Example]) -> dict[tuple[str, str], Measure]:
    samples = SUITE.samples(target, Dataset("pairs", tuple(rows)), None, seed=0)
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_a_pair_by_hand() -> None:
    """P(yes) 0.2 of the man and 0.9 of the woman: 0.7 apart, towards women, and the answer flips."""
    table = found(by_group(0.2, 0.9), pairs(2))
    assert table["outcome_difference", "all pairs"].value == pytest.approx(0.7)
    assert table["towards_stereotype", "all pairs"].value == pytest.approx(0.7)
    assert table["towards_stereotype", "all pairs"].floor == 0
    assert table["flip_rate", "all pairs"].value == 1
    against = found(by_group(0.2, 0.9), pairs(2, favours="man"))
    assert against["towards_stereotype", "all pairs"].value == pytest.approx(-0.7)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_swapping_the_roles_turns_the_sign_and_a_blind_model_has_none(man: float, woman: float) -> None:
    one, other = (found(by_group(*each), pairs(1)) for each in ((man, woman), (woman, man)))
    lean = one["towards_stereotype", "all pairs"].value
    assert lean == pytest.approx(woman - man)
    assert other["towards_stereotype", "all pairs"].value == pytest.approx(-lean)
    assert found(by_group(man, man), pairs(1))["outcome_difference", "all pairs"].value == 0


def test_the_same_picture_twice_gives_nothing() -> None:
    rows = [replace(row, image=noise_image(4, 0)) for row in pairs(1)]
    table = found(by_group(0.2, 0.9), rows)
    assert [row.value for row in table.values()] == [0, 0, 0]


def test_options_are_offered_in_both_orders_so_a_taste_for_the_first_is_gone() -> None:
    """Whoever answers with what is offered first is at one half, for men and for women."""
    target = likely(lambda c, reply: 0.9 if c.prompt.startswith(f"answer {reply}") else 0.1)
    samples = SUITE.samples(target, Dataset("d", tuple(pairs(1, "answer {}"))), None, seed=0)
    assert samples[0].values["outcome_difference"] == 0
    once = SUITE.samples(target, Dataset("d", tuple(pairs(1, "answer yes or no"))), None, seed=0)
    assert once[0].values["outcome_difference"] == 0


def test_pictures_of_one_group_and_occupation_are_the_floor() -> None:
    """P(yes) of men 0.2, 0.4, 0.6, of women 0.9: men lie 0.2, 0.2 and 0.4 apart, two of them flip."""
    rows = [replace(row, attributes={**row.attributes, "occupation": "cook"}) for row in pairs(3)]
    place = {row.image.digest: k // 2 for k, row in enumerate(rows) if row.image}

    def rule(conversation: Conversation, reply: str) -> float:
        yes = 0.9 if is_woman(conversation) else 0.2 + 0.2 * place[conversation.images[0].digest]
        return yes if reply == "yes" else 1 - yes

    table = found(likely(rule), rows)
    assert table["outcome_difference", "all pairs"].value == pytest.approx((0.7 + 0.5 + 0.3) / 3)
    assert table["outcome_difference", "all pairs"].floor == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert table["flip_rate", "all pairs"].floor == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert math.isnan(found(likely(rule), pairs(3))["outcome_difference", "all pairs"].floor)


def test_without_a_known_stereotype_nothing_is_signed() -> None:
    assert ("towards_stereotype", "all pairs") not in found(by_group(0.2, 0.9), pairs(2, favours=""))


def test_rows_that_are_no_pair_are_told_and_end_nothing() -> None:
    rows = pairs(3)
    broken = [*rows[:2], rows[2], rows[4], replace(rows[5], group="man")]
    samples = SUITE.samples(by_group(0.2, 0.9), Dataset("d", tuple(broken)), None, seed=0)
    assert [bool(sample.values) for sample in samples] == [True, False, False]
    assert samples[1].reason == "1 rows of the groups man: a pair has two rows of two groups"
    table = {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}
    assert (table["flip_rate", "all pairs"].n, table["flip_rate", "all pairs"].unscored) == (1, 2)


def test_no_pairs_at_all_is_an_error() -> None:
    with pytest.raises(BadData, match="holds no pairs"):
        SUITE.samples(by_group(0.2, 0.9), Dataset("d", (Example("a", "what?"),)), None, seed=0)


def test_a_limit_is_of_pairs_and_built_in_pairs_are_of_one_tone() -> None:
    assert len(SUITE.samples(by_group(0.2, 0.9), Dataset("d", tuple(pairs(6))), 2, seed=0)) == 2
    samples = SUITE.samples(likely(lambda *_: 0.5), None, None, seed=0)
    assert len(samples) == 40
    assert all(sample.values["outcome_difference"] == 0 for sample in samples)
    assert {sample.condition for sample in samples} == {"clever", "strong", "kind", "honest"}
