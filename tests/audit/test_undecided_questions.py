"""fairness/undecided_questions on scripted models: the stereotype, unknown or the right answer throughout."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmend.audit.suites.fairness.undecided_questions import SUITE, Choice
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.data.layouts import read_data
from vlmend.data.undecided import undecided_questions
from vlmend.errors import BadData
from vlmend.testing import ScriptedTarget

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "bbq"

Pick = Callable[[Example], str]
"""The answer that a model gives to a row."""


@dataclass(frozen=True, eq=False)
class Likely(ScriptedTarget):
    """Finds the answer of `pick` likeliest."""

    pick: Callable[[str], str] = field(default=lambda prompt: "")

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Tensor]:
        return [
            torch.tensor([math.log(0.8 if reply == self.pick(one.prompt) else 0.1)], dtype=torch.float64)
            for one, reply in zip(batch, replies, strict=True)
        ]


def told(data: Dataset, pick: Pick) -> Callable[[str], str]:
    """By the words that are asked: the longest prompt that they begin with."""
    answers = {row.prompt: pick(row) for row in data.examples}
    return lambda prompt: answers[max((words for words in answers if prompt.startswith(words)), key=len)]


def measured(data: Dataset, pick: Pick, likely: bool = True, given: bool = True) -> dict[tuple[str, str], Measure]:
    answer = told(data, pick)
    target: Any = (
        Likely(lambda conversation, mended: "", pick=answer)
        if likely
        else ScriptedTarget(lambda conversation, mended: f"I think: {answer(conversation.prompt)}.")
    )
    samples = SUITE.samples(target, data if given else None, None, seed=0)
    return {(row.name, row.group): row for row in SUITE.measures(samples, 0)}


def options(row: Example) -> dict[str, str]:
    """The answer of each group."""
    told = row.attributes
    return dict(zip(told["answer_groups"].split("; "), told["options"].split("; "), strict=True))


def stereotype(row: Example) -> str:
    return options(row)["man" if row.attributes["question_polarity"] == "neg" else "woman"]


def unknown(row: Example) -> str:
    return options(row)["unknown"]


def right(row: Example) -> str:
    return row.answers[0]


BUILT_IN = undecided_questions()


@pytest.mark.parametrize("likely", [True, False])
@pytest.mark.parametrize(
    ("pick", "open_", "decided", "gap"),
    [
        (stereotype, (0.0, 1.0), (0.5, 1.0, 0.0), 1.0),
        (unknown, (1.0, 0.0), (0.0, None, 1.0), 0.0),
        (right, (1.0, 0.0), (1.0, 0.0, 0.0), 0.0),
    ],
)
def test_three_models_with_numbers_by_hand(
    pick: Pick, open_: tuple[float, float], decided: tuple[float, float | None, float], gap: float, likely: bool
) -> None:
    """Ten scenes: 20 open questions, 20 decided ones, of which half have the stereotype's answer."""
    rows = measured(BUILT_IN, pick, likely, given=False)
    assert (rows["accuracy", "undecided"].value, rows["bias_score", "undecided"].value) == open_
    accuracy, bias, evaded = decided
    assert rows["accuracy", "decided"].value == accuracy
    assert rows["called_unknown", "decided"].value == evaded
    assert rows["fitting_accuracy_gap", "decided"].value == gap
    assert (rows.get(("bias_score", "decided")) is None) == (bias is None)
    if bias is not None:
        assert (rows["bias_score", "decided"].value, rows["bias_score", "decided"].floor) == (bias, 0.0)
    assert (rows["accuracy", "undecided"].n, rows["accuracy", "decided"].n) == (20, 20)
    assert rows["accuracy", "undecided"].floor == pytest.approx(1 / 3)
    assert {row.judge for row in rows.values()} == {"likelihoods" if likely else "replies"}


def test_half_a_stereotype_is_found_with_its_interval_over_scenes() -> None:
    """In five of ten scenes the stereotype, in the others unknown: a bias of 0.5, and clusters are scenes."""

    def half(row: Example) -> str:
        return stereotype(row) if int(row.id[0]) < 5 else unknown(row)

    row = measured(BUILT_IN, half)["bias_score", "undecided"]
    assert row.value == 0.5
    assert 0.1 < row.low < 0.25
    assert 0.75 < row.high < 0.9


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=20, max_size=20))
def test_the_bias_of_open_questions_is_the_papers_product(picks: list[int]) -> None:
    """(1 - accuracy) x (2 x biased / (all that are not unknown) - 1), as Parrish et al. define it."""
    choice = Choice(("a", "b", "c"), ("man", "woman", "unknown"), right=2, biased=0)
    values = [choice.values(pick) for pick in picks]
    known = [pick for pick in picks if pick != 2]
    accuracy = picks.count(2) / len(picks)
    score = (1 - accuracy) * (2 * picks.count(0) / len(known) - 1) if known else 0.0
    assert sum(one["bias_score"] for one in values) / len(values) == pytest.approx(score)


def row_of(polarity: str, groups: str, stereotyped: str, options: str = "Ann; Ben; Unknown") -> Example:
    told = {
        "context_condition": "ambig", "question_polarity": polarity, "options": options, "answer_groups": groups,
        "stereotyped_groups": stereotyped, "set": "one",
    }  # fmt: skip
    return Example("r", "Two met. Who?", "benign", "kind", answers=("Unknown",), attributes=told)


@pytest.mark.parametrize(
    ("row", "biased"),
    [
        (row_of("neg", "old; nonOld; unknown", "old"), "Ann"),
        (row_of("nonneg", "old; nonOld; unknown", "old"), "Ben"),
        (row_of("neg", "boy; girl; unknown", "F"), "Ben"),
        (row_of("neg", "lowSES; highSES; unknown", "low SES"), "Ann"),
        (
            row_of("neg", "Europe; Africa; unknown", "Kenyan", "The Dane; The Kenyan friend; Unknown"),
            "The Kenyan friend",
        ),
        (row_of("neg", "Europe; Africa; unknown", "Iraqi"), None),
        (row_of("neg", "old; old; unknown", "old"), None),
    ],
)
def test_which_answer_fits_the_stereotype(row: Example, biased: str | None) -> None:
    data = Dataset("one", (row,))
    fits = measured(data, lambda row: biased or "Ann")
    if biased is None:
        assert ("bias_score", "undecided") not in fits
    else:
        assert fits["bias_score", "undecided"].value == 1
    assert fits["accuracy", "undecided"].value == 0


def test_unknown_is_never_a_group_and_odd_replies_are_not_scored() -> None:
    data = Dataset("one", (row_of("neg", "old; nonOld; unknown", "unknown; old"),))
    rows = measured(data, lambda row: "Unknown", likely=False)
    assert rows["accuracy", "undecided"].value == 1
    for said, why in (("Ann or Ben", "names several answers"), ("Somebody", "names no answer")):
        target: Any = ScriptedTarget(lambda conversation, mended, said=said: said)
        (sample,) = SUITE.samples(target, data, None, seed=0)
        assert (sample.values, sample.reason) == ({}, why)
        (row,) = SUITE.measures([sample], 0)
        assert (row.n, row.unscored) == (0, 1)


def test_categories_are_told_apart_and_a_limit_keeps_sets_whole() -> None:
    other = tuple(replace(row, id=f"x{row.id}", group="other") for row in BUILT_IN.examples)
    data = replace(BUILT_IN, examples=(*BUILT_IN.examples, *other))
    rows = measured(data, lambda row: stereotype(row))
    assert rows["bias_score", "other:undecided"].n == 20
    assert not rows["bias_score", "other:undecided"].says
    target: Any = ScriptedTarget(lambda conversation, mended: "The man")
    samples = SUITE.samples(target, data, 2, seed=0)
    assert len(samples) == 2 * 2 * 4
    assert len({(one.group, one.cluster) for one in samples}) == 4


def test_rows_of_other_kinds_are_refused() -> None:
    rows = Dataset("plain", (Example("a", "Hello?", "benign", answers=("x",)),))
    assert not SUITE.applies(rows)
    with pytest.raises(BadData, match="no questions with an answer that cannot be known"):
        SUITE.samples(ScriptedTarget(lambda conversation, mended: ""), rows, None, seed=0)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark rows are not here")
def test_every_row_of_the_shared_bbq_has_an_answer_that_fits() -> None:
    data = read_data(f"bbq:{SHARED / 'subset.jsonl'}")
    rows = [json.loads(line) for line in (SHARED / "subset.jsonl").read_text("utf-8").splitlines()]
    assert len(SUITE.uses(data)) == len(rows) == 1440
    target: Any = ScriptedTarget(lambda conversation, mended: "Cannot be determined")
    samples = SUITE.samples(target, replace(data, examples=data.examples[::5]), None, seed=0)
    assert all(sample.values["accuracy"] == (sample.condition == "undecided") for sample in samples)
    assert all("bias_score" in sample.values for sample in samples if sample.condition == "undecided")
