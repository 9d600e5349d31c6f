"""What the contract of attacks takes from a proposed row, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from vlmend.core.attacks import AbstractAttack, Budget, Proposal
from vlmend.core.conversation import Turn
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData
from vlmend.testing import ScriptedTarget

ROW = Example("a", "q", image=noise_image(4, 0), answers=("x",), attributes={"tone": "dark"})
Change = Callable[[Example], Example]


@dataclass(frozen=True)
class Swap(AbstractAttack):
    """Proposes what it is told."""

    name = "swap"
    source = "none"
    works_on = ("chat",)
    needs = "replies"

    change: Change = replace

    def task(self, target: object, data: Dataset) -> None: ...

    def failed(self, task: object, rows: Sequence[Example]) -> list[bool]:
        return [False] * len(rows)

    def propose(self, task: object, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        return [Proposal(self.change(row)) for row in rows]


def attacked(change: Change) -> Example:
    target = ScriptedTarget(lambda conversation, sampling: "x")
    return Swap(change).run(target, Dataset("set", (ROW,)), Budget(4 / 255), seed=0).examples[0]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("image", lambda row: replace(row, image=noise_image(4, 1))),
        ("more_images", lambda row: replace(row, more_images=(noise_image(4, 1),))),
        ("id", lambda row: replace(row, id="b")),
        ("answers", lambda row: replace(row, answers=("y",))),
        ("label", lambda row: replace(row, label="harmful")),
        ("images in turns", lambda row: replace(row, turns=(Turn("user", "look", (noise_image(4, 1),)),))),
    ],
)
def test_a_row_with_other_pictures_or_answers_is_an_error_of_the_attack(field: str, change: Change) -> None:
    with pytest.raises(BadData, match=f"a: an attack proposed a row with other {field}"):
        attacked(change)


def test_words_and_attributes_are_taken_and_those_of_the_protocol_win() -> None:
    row = attacked(lambda row: replace(row, prompt="r", attributes={"by": "search", "of": "another"}))
    assert (row.prompt, row.image) == ("r", ROW.image)
    assert (row.request, row.attributes["request"]) == ("q", "q")
    assert (row.attributes["tone"], row.attributes["by"], row.attributes["of"]) == ("dark", "search", "a")


def test_what_is_wanted_stays_told_when_an_attacked_row_is_attacked_again_and_is_not_where_no_words_changed() -> None:
    assert "request" not in attacked(replace).attributes
    again = Swap(lambda row: replace(row, prompt=f"{row.prompt}!")).run(
        ScriptedTarget(lambda conversation, sampling: "x"),
        Dataset("set", (attacked(lambda row: replace(row, prompt="r")),)), Budget(4 / 255), seed=0,
    ).examples[0]  # fmt: skip
    assert (again.prompt, again.request) == ("r!", "q")
