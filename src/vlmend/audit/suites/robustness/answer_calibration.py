"""robustness/answer_calibration: is a model that answers as sure as it is right, and still so when pictures shift?

Each question has a list of answers, the right one among others of the data. Confidence is the likelihood of the
likeliest of them as the reply, divided by that of all. Questions under a shift are held against the same without it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.calibrating import calibration_rows, calibration_values, reliability_curves
from vlmend.audit.shifted import names_of, shifted_samples
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, ChatLikelihoods, Kind
from vlmend.pictures.galleries import QUESTION, shifted_objects

__all__ = ["CHOICES", "SUITE", "AnswerCalibration"]

CHOICES = 4
"""Longest list of answers to a question."""

COUNT = 40
"""Built-in things, each plain and under each shift."""

JUDGE = "likelihoods"


class AnswerCalibration(SampleSuite[ChatLikelihoods]):
    """ECE and adaptive ECE beside proper scores, by shift, and what each shift changes on the same questions."""

    name: ClassVar[str] = "robustness/answer_calibration"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "chat"
    needs: ClassVar[Access] = "likelihoods"
    about: ClassVar[str] = "whether confidence in an answer means accuracy, also on shifted pictures (chat models)"

    def applies(self, data: Dataset) -> bool:
        return len(names_of(data)) > 1

    def samples(
        self, subject: ChatLikelihoods, data: Dataset | None, limit: int | None, *, seed: int,
        split: Split = "held_out",
    ) -> list[Sample]:  # fmt: skip
        given = shifted_objects(split, COUNT) if data is None else data
        return shifted_samples(subject, given, limit, split, lambda rows, names: _values(subject, rows, names, seed))

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return calibration_rows(self, samples, seed, judge=JUDGE)

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return reliability_curves(self.name, samples)


def _values(
    target: ChatLikelihoods, rows: Sequence[Example], names: Sequence[str], seed: int
) -> list[dict[str, float]]:
    """The numbers of each question; none where every name of the data is right."""
    answers = {row.id: _choices(row, names, seed) for row in rows}
    asked = [row for row in rows if len(answers[row.id]) > 1]
    found = dict(zip([row.id for row in asked], _loglikelihoods(target, asked, answers), strict=True))
    return [
        calibration_values(found[row.id][None], torch.tensor([answers[row.id].index(row.answers[0])]), "softmax")[0]
        if row.id in found else {}
        for row in rows
    ]  # fmt: skip


def _choices(row: Example, names: Sequence[str], seed: int) -> list[str]:
    """The right answer among others, the same for a picture and its shifts; no other right one of the row."""
    rng = random.Random(f"choices:{seed}:{row.attributes.get('of', row.id)}")
    others = [name for name in names if name not in row.answers]
    return sorted([row.answers[0], *rng.sample(others, min(len(others), CHOICES - 1))])


def _loglikelihoods(
    target: ChatLikelihoods, rows: Sequence[Example], answers: Mapping[str, Sequence[str]]
) -> list[Float[Tensor, " answer"]]:
    """Of each answer to each question, as the beginning of the reply."""
    asked = [(row if row.prompt else replace(row, prompt=QUESTION)).conversation for row in rows]
    pairs = [(one, answer) for row, one in zip(rows, asked, strict=True) for answer in answers[row.id]]
    found = iter(target.logprobs([one for one, _ in pairs], [answer for _, answer in pairs]))
    return [torch.stack([next(found).double().sum() for _ in answers[row.id]]) for row in rows]


SUITE = AnswerCalibration()
