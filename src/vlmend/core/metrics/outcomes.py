"""What a yes or no decision comes to for each group: AUC by group, ES-AUC, demographic parity, equalised odds.

All of them are functions of weights on pictures, so that resamples of people are weights too and one sort of the
scores serves them all. The tables by group are `fairlearn`'s (`vlmend.audit.outcome_tables`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vlmend.core.metrics.groups import regrouped
from vlmend.core.metrics.resampling import expanded_percentile
from vlmend.core.metrics.stats import Interval, wilson

__all__ = ["Decided", "Outcomes", "by_chance", "es_auc", "limits", "outcomes", "resampled_outcomes", "weighted_auc"]

Array = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]

BLOCK = 4 * 10**6
"""Weights drawn at once: 32 MB."""


@dataclass(frozen=True)
class Decided:
    """Pictures with what was decided about them.

    Attributes:
        scores: High for yes.
        truth: The right answer of each.
        yes: What was decided of each.
        groups: Of each picture.
        clusters: What each is drawn again with, such as the person.
    """

    scores: Sequence[float]
    truth: Sequence[bool]
    yes: Sequence[bool]
    groups: Sequence[str]
    clusters: Sequence[str]

    @property
    def names(self) -> list[str]:
        """The groups."""
        return sorted(set(self.groups))


class Outcomes(NamedTuple):
    """One number, or one a resample, of each kind; `aucs` in the order of the groups' names.

    Attributes:
        aucs: Chance that a picture whose answer is yes scores above one whose answer is no, within each group.
        auc: The same over all groups together.
        es_auc: `es_auc` of the two.
        auc_spread: Largest less smallest AUC of a group, over the AUC of all.
        parity: Largest less smallest share of yes decisions of a group.
        odds: The larger of: largest less smallest true-positive rate, and the same of false-positive rates.
    """

    aucs: Array
    auc: Array
    es_auc: Array
    auc_spread: Array
    parity: Array
    odds: Array


def es_auc(auc: Array, aucs: Array) -> Array:
    """Equity-scaled AUC: auc / (1 + sum over groups of |auc - auc of the group|); at most auc.

    Shape:
        auc (resample,), aucs (resample, group), result (resample,).

    Source: Luo et al., CVPR 2024 (Harvard-FairVLMed).
    """
    return auc / (1 + np.abs(aucs - auc[:, None]).sum(1))


def outcomes(decided: Decided) -> Outcomes:
    """The numbers themselves, one resample long; every group must hold pictures of both answers, else NaN."""
    return _outcomes(decided, np.asarray(decided.groups), np.ones((1, len(decided.scores))))


def resampled_outcomes(decided: Decided, *, seed: int, draws: int) -> Outcomes:
    """The same of bootstrap resamples of whole clusters."""
    places = {name: k for k, name in enumerate(dict.fromkeys(decided.clusters))}
    member, own = np.array([places[name] for name in decided.clusters]), np.asarray(decided.groups)
    rng, n = np.random.default_rng(seed), len(places)
    block = max(1, BLOCK // len(member))
    parts: list[Outcomes] = []
    for start in range(0, draws, block):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(block, draws - start))
        parts.append(_outcomes(decided, own, counts[:, member].astype(np.float64)))
    return Outcomes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def by_chance(decided: Decided, *, seed: int, draws: int) -> dict[str, float]:
    """What chance alone gives for the measures of two or more groups: their mean where groups are dealt anew.

    Groups are dealt among the clusters whose answer is the same, so that base rates stay; for `parity`, which base
    rates are a part of, among all.
    """
    answers, one = ["yes" if true else "no" for true in decided.truth], np.ones((1, len(decided.scores)))
    found: dict[str, list[float]] = {name: [] for name in ("es_auc", "auc_spread", "parity", "odds")}
    for strata, names in ((answers, ("es_auc", "auc_spread", "odds")), ([""] * len(answers), ("parity",))):
        for own in regrouped(decided.groups, decided.clusters, strata, seed=seed, draws=draws):
            given = _outcomes(decided, own, one)
            for name in names:
                found[name].append(float(getattr(given, name)[0]))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def limits(value: float, drawn: Array, decided: Decided, *, spread: bool) -> Interval:
    """A number with the interval that its resamples give.

    Resamples of what is largest less smallest, and of what falls with it, lie beyond the number itself; so where
    `spread` says so they are moved until their mean is the number, and kept within 0 and 1. Where none differs from 0
    or 1, Wilson's interval with as many samples as the rarer answer has people; elsewhere NaN limits.
    """
    moved = (drawn - np.nanmean(drawn) + value).clip(0, 1) if spread and not np.isnan(drawn).all() else drawn
    people = len(set(decided.clusters))
    found = expanded_percentile(moved, value, people, 0.95)
    if math.isnan(found.low) and value in (0.0, 1.0):
        of = [{c for c, t in zip(decided.clusters, decided.truth, strict=True) if t == own} for own in (True, False)]
        few = min(map(len, of))
        return wilson(int(value) * few, few)
    return found


def weighted_auc(scores: Sequence[float] | Array, truth: Sequence[bool] | Truths, weights: Array) -> Array:
    """Chance that a yes picture scores above a no picture, ties half, for each row of weights; NaN without either.

    Shape:
        scores, truth (picture,), weights (resample, picture), result (resample,).
    """
    value, true = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if not len(value):
        return np.full(len(weights), np.nan)
    order = np.argsort(value, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(value[order]) > 0])
    positive, negative = (
        np.add.reduceat(weights[:, order] * which[order], starts, axis=1) for which in (true, ~true)
    )  # by distinct score
    above = (positive * (negative.cumsum(1) - negative / 2)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / (positive.sum(1) * negative.sum(1))


def _outcomes(decided: Decided, own: npt.NDArray[Any], weights: Array) -> Outcomes:
    scores, truth = np.asarray(decided.scores), np.asarray(decided.truth, bool)
    yes, names = np.asarray(decided.yes, np.float64), decided.names
    aucs = np.stack([weighted_auc(scores[own == g], truth[own == g], weights[:, own == g]) for g in names], axis=1)
    auc = weighted_auc(scores, truth, weights)
    rates = [_spread(yes, own, names, weights * among) for among in (np.ones_like(yes), truth, ~truth)]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.ptp(aucs, axis=1) / auc
    return Outcomes(aucs, auc, es_auc(auc, aucs), spread, rates[0], np.maximum(rates[1], rates[2]))


def _spread(yes: Array, own: npt.NDArray[Any], names: Sequence[str], weights: Array) -> Array:
    """Largest less smallest weighted share of yes over the groups; NaN where a group was not drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [(weights[:, own == g] @ yes[own == g]) / weights[:, own == g].sum(1) for g in names]
    return np.ptp(np.stack(shares, axis=1), axis=1)
