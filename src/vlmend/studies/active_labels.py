"""What labels of people buy, by how replies are chosen for them: a judge that learns from them, and a rate.

From a pool of replies whose labels are known, labels are asked batch by batch: at random, of what the judge fitted so
far is least sure of, of what two judges part on, or of the group that the judge gets wrong most often. A quarter of
each batch stays random, drawn beforehand from the whole pool (`audit.labels.choosing`): what is left after others were
chosen is no random sample. After each batch a linear judge is fitted on all labels and held
against held-out replies, in all and in the group where it does worst; and the pool's rate is told twice, from all
labels as if they were random, and by prediction-powered inference from the random ones alone.
Source: Settles, Active Learning Literature Survey, 2009, for uncertainty and committees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float64, Int
from sklearn.linear_model import LogisticRegression

from vlmend.audit.labels.choosing import Choose, audit_slice
from vlmend.core.metrics.correction import ppi
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.errors import BadParameter

__all__ = ["CHOICES", "Point", "Pool", "learning_curve", "next_batch"]

Inputs = Float64[np.ndarray, "reply feature"]
Chances = Float64[np.ndarray, " reply"]
Said = Bool[np.ndarray, " reply"]
Places = Int[np.ndarray, " reply"]

CHOICES: tuple[Choose, ...] = get_args(Choose)


@dataclass(frozen=True)
class Pool:
    """Replies, as a judge sees them, and what people say of them.

    Attributes:
        inputs: Of each reply, "reply feature".
        labels: Whether people find in it what is counted.
        groups: What the worst is looked for among, such as the models that wrote them.
        first: What a judge that learns nothing says of each.
    """

    inputs: Inputs
    labels: Said
    groups: tuple[str, ...]
    first: Said

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.labels) == len(self.groups) == len(self.first) > 0:
            raise BadParameter("The columns of a pool have one length, above 0.", "Give one of each for each reply.")


@dataclass(frozen=True)
class Point:
    """Where one run stands after so many labels.

    Attributes:
        accuracy, worst: Of the judge on held-out replies: of all, and of the group where it is least.
        rate: The pool's own.
        naive: The rate told by all labels, with Wilson's interval, which holds for random ones alone.
        corrected: The rate told by the random labels and the first judge (`ppi`).
    """

    labels: int
    accuracy: float
    worst: float
    rate: float
    naive: Interval
    corrected: Interval


def learning_curve(
    pool: Pool, held_out: Pool, choose: Choose, seed: int, *, batch: int = 20, most: int = 400
) -> list[Point]:
    """Ask for `batch` labels after the other, the first of them at random, until `most` or the whole pool.

    Raises:
        BadParameter: Batches of fewer than two, or no more labels than a batch.
    """
    if batch < 2 or most < batch:
        raise BadParameter(f"batch={batch} and most={most} ask nothing.", "Use 2 or more, and most as large.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.labels))
    asked: list[int] = []
    kept = 0
    wrong = {name: [1, 2] for name in dict.fromkeys(pool.groups)}  # one of two wrong before anything is known
    points: list[Point] = []
    sure = np.full(len(pool.labels), 0.5)
    while len(asked) < min(most, len(pool.labels)):
        count = min(batch, most - len(asked), len(pool.labels) - len(asked))
        how: Choose = choose if asked else "random"
        rates = {name: missed / told for name, (missed, told) in wrong.items()}
        kept += count if how == "random" else min(audit_slice(count), count)
        at_random, chosen = next_batch(pool, sure, rates, asked, how, count, order, kept)
        for k in (*at_random, *chosen):  # told before the judge has learnt from it
            wrong[pool.groups[k]][0] += int((sure[k] > 0.5) != pool.labels[k]) if asked else 0
            wrong[pool.groups[k]][1] += int(bool(asked))
        asked += [*at_random, *chosen]
        judge = _fitted(pool, asked)
        sure = judge(pool.inputs)
        points.append(_point(pool, held_out, judge(held_out.inputs) > 0.5, asked, order[:kept]))
    return points


def next_batch(
    pool: Pool, sure: Chances, rates: Mapping[str, float], asked: Sequence[int], choose: Choose, count: int,
    order: Places, kept: int,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Places in the pool to ask about next: those drawn at random, and those chosen; none was asked before.

    Args:
        pool: All replies.
        sure: The judge's probability for each.
        rates: How often it was wrong, by group.
        asked: Places that have labels.
        choose: How; ties are broken by the order.
        count: How many, at most as many as are left.
        order: All places in random order.
        kept: How many of these, from the first on, have labels after this batch, however they came to them.
    """
    had = set(asked)
    at_random = [int(k) for k in order[:kept] if k not in had]
    rest = np.array([k for k in order[kept:] if k not in had], dtype=np.int64)
    match choose:
        case "random":
            worth = np.zeros(len(rest))
        case "uncertainty":
            worth = -np.abs(sure[rest] - 0.5)
        case "disagreement":
            worth = np.abs(sure[rest] - pool.first[rest])
        case "worst_group":
            worth = np.array([rates[pool.groups[k]] for k in rest])
    best = rest[np.argsort(-worth, kind="stable")][: count - len(at_random)]
    return at_random, [int(k) for k in best]


def _fitted(pool: Pool, asked: Sequence[int]) -> Callable[[Inputs], Chances]:
    """A judge fitted on these labels: the probability of each reply; their share while all are alike."""
    labels = pool.labels[list(asked)]
    if labels.all() or not labels.any():
        return lambda inputs: np.full(len(inputs), float(labels.mean()))
    model = LogisticRegression(max_iter=1000).fit(pool.inputs[list(asked)], labels)
    return lambda inputs: np.asarray(model.predict_proba(inputs)[:, 1])


def _point(pool: Pool, held_out: Pool, said: Said, asked: Sequence[int], drawn: Int[np.ndarray, " drawn"]) -> Point:
    right = said == held_out.labels
    names = np.array(held_out.groups)
    told, judged = pool.labels[list(asked)], pool.first.astype(float)
    return Point(
        len(asked), float(right.mean()), min(float(right[names == name].mean()) for name in set(held_out.groups)),
        float(pool.labels.mean()), wilson(int(told.sum()), len(told)),
        ppi(judged.tolist(), judged[drawn].tolist(), pool.labels[drawn].astype(float).tolist()),
    )  # fmt: skip
