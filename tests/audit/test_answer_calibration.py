"""robustness/answer_calibration on a model whose likelihoods are given: confidences by hand, lists, a planted fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor

from vlmend.audit.suites.robustness.answer_calibration import CHOICES, SUITE
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.pictures.galleries import QUESTION
from vlmend.testing import ScriptedTarget


@dataclass(frozen=True)
class Sure(ScriptedTarget):
    """Gives each reply the probability that a rule says, in two tokens of one half of its logarithm."""

    rule: Callable[[Conversation, str], float] = field(default=lambda conversation, reply: 1.0)
    lists: list[tuple[str, tuple[str, ...]]] = field(default_factory=list[tuple[str, tuple[str, ...]]])

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Tensor]:
        pairs = list(zip(batch, replies, strict=True))
        for conversation, told in groupby(pairs, lambda pair: pair[0]):
            self.lists.append((conversation.prompt, tuple(reply for _, reply in told)))
        return [torch.full((2,), math.log(self.rule(one, reply)) / 2) for one, reply in pairs]


def sure(rule: Callable[[Conversation, str], float]) -> Sure:
    return Sure(lambda conversation, mended: "", rule=rule)


def rows(count: int, names: Sequence[str] = ("cat", "dog"), shift: str = "") -> list[Example]:
    told = {"shift": shift} if shift else {}
    return [
        Example(f"{k}{shift}", "", None, "", noise_image(4, k), answers=(names[k % len(names)],),
                attributes={**told, "of": str(k)})
        for k in range(count)
    ]  # fmt: skip


def found(target: Any, given: Sequence[Example]) -> dict[tuple[str, str], Measure]:
    samples = SUITE.samples(target, Dataset("pets", tuple(given)), None, seed=0)
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_confidence_is_the_share_of_the_likeliest_answer_by_hand() -> None:
    """0.03 for cat and 0.01 for dog, all else is said to neither: 0.75 sure of cat, which is right for half.

    ECE |0.5 - 0.75| = 0.25; Brier (2 x 0.0625 + 2 x 0.5625) / 2 = 0.625.
    """
    table = found(sure(lambda _, reply: 0.03 if reply == "cat" else 0.01), rows(4))
    assert table["accuracy", "clean"].value == 0.5
    assert table["ece", "clean"].value == pytest.approx(0.25)
    assert table["overconfidence", "clean"].value == pytest.approx(0.25)
    assert table["brier", "clean"].value == pytest.approx(0.625)
    assert table["accuracy", "clean"].floor == 0.5
    assert table["accuracy", "clean"].judge == "likelihoods"


def test_a_model_that_stays_sure_under_a_shift_is_found_and_one_that_grows_unsure_is_not() -> None:
    """Right on nine of ten without fog; in fog on half, as sure as before or half as sure as it should be."""
    names = [f"thing {k}" for k in range(2)]
    given = [*rows(100, names), *rows(100, names, "fog")]
    place = {row.image.digest: (k, row) for k, row in enumerate(given) if row.image is not None}

    def rule(honest: bool) -> Callable[[Conversation, str], float]:
        def says(conversation: Conversation, reply: str) -> float:
            k, row = place[conversation.images[0].digest]
            foggy = k >= 100
            right = k % 10 < (5 if foggy else 9)
            sure = 0.5001 if honest and foggy else 0.9
            return sure if (reply == row.answers[0]) == right else 1 - sure

        return says

    shifted = [replace(row, image=noise_image(4, 1000 + k)) for k, row in enumerate(given)]
    place.update({row.image.digest: (k, row) for k, row in enumerate(shifted) if row.image is not None})
    vain, fine = found(sure(rule(False)), shifted), found(sure(rule(True)), shifted)
    assert vain["ece_change", "fog"].value == pytest.approx(0.4, abs=1e-3)
    assert vain["ece_change", "fog"].low > 0.2
    assert fine["ece_change", "fog"].value == pytest.approx(0, abs=1e-2)
    assert fine["ece_change", "fog"].low < 0.05


def test_a_picture_has_one_list_of_answers_with_and_without_a_shift() -> None:
    names = [f"thing {k}" for k in range(9)]
    target = sure(lambda _, reply: 0.1)
    found(target, [*rows(9, names), *rows(9, names, "fog")])
    lists = [told for _, told in target.lists]
    assert lists[:9] == lists[9:]
    assert all(len(set(told)) == CHOICES and names[k] in told for k, told in enumerate(lists[:9]))


def test_other_right_answers_of_a_row_are_not_among_the_wrong_ones() -> None:
    given = [replace(row, answers=("cat", "dog")) if k == 0 else row for k, row in enumerate(rows(3, ("cat", "dog")))]
    target = sure(lambda _, reply: 0.1)
    table = found(target, given)
    assert target.lists == [(QUESTION, ("cat", "dog"))] * 2
    assert (table["ece", "clean"].n, table["ece", "clean"].unscored) == (2, 1)


def test_rows_that_ask_nothing_are_asked_what_is_seen() -> None:
    target = sure(lambda _, reply: 0.1)
    found(target, [*rows(1), replace(rows(2)[1], prompt="Which pet?")])
    assert [prompt for prompt, _ in target.lists] == [QUESTION, "Which pet?"]


def test_a_broken_picture_is_unscored_and_one_name_is_refused() -> None:
    broken = [*rows(2), replace(rows(3)[2], image=Image(b"no picture"))]
    table = found(sure(lambda _, reply: 0.1), broken)
    assert (table["ece", "clean"].n, table["ece", "clean"].unscored) == (2, 1)
    with pytest.raises(BadData, match="1 names"):
        found(sure(lambda _, reply: 0.1), rows(2, ("cat",)))
