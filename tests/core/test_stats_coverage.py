"""How often each interval covers the truth, nominal 95 %, and a naive one that does not.

Wilson's and Tango's coverage is summed over all outcomes; the others are simulated (seeded). The bounds are
what is promised: 0.92, or less where said. A control that passed would make the test worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, multinomial

from vlmend.core.metrics.correction import ppi, rogan_gladen
from vlmend.core.metrics.raters import kappa_interval, krippendorff_alpha
from vlmend.core.metrics.resampling import cluster_bootstrap, paired_bootstrap
from vlmend.core.metrics.stats import Interval, paired_difference, wilson

PROMISED = 0.92
Z = 1.959963984540054
Array = npt.NDArray[np.float64]


def covered(intervals: Iterable[Interval], truth: float) -> float:
    """The share that holds the truth; NaN limits do not."""
    return float(np.mean([low <= truth <= high for _, low, high in intervals]))


def wald(value: float, n: int) -> Interval:
    half = Z * math.sqrt(value * (1 - value) / n)
    return Interval(value, value - half, value + half)


@pytest.mark.parametrize(("n", "rate"), [(20, 0.1), (50, 0.03), (80, 0.05), (80, 0.6)])
def test_wilson(n: int, rate: float) -> None:
    weights = binom.pmf(range(n + 1), n, rate)
    exact = sum(w * covered([wilson(k, n)], rate) for k, w in enumerate(weights))
    assert exact >= PROMISED
    if rate <= 0.05:
        assert sum(w * covered([wald(k / n, n)], rate) for k, w in enumerate(weights)) < PROMISED


@pytest.mark.parametrize(
    ("n", "fixed", "broken"),
    [(20, 0.1, 0.0), (20, 0.05, 0.05), (20, 0.42, 0.02), (80, 0.03, 0.0), (80, 0.42, 0.02), (80, 0.1, 0.1)],
)
def test_paired_difference(n: int, fixed: float, broken: float) -> None:
    """Control: the normal interval, which has no width where nothing changed."""
    ours = naive = 0.0
    for f, b in product(range(n + 1), repeat=2):
        weight = float(multinomial.pmf([f, b, n - f - b], n, [fixed, broken, 1 - fixed - broken]))
        if not weight > 1e-6:
            continue
        same = [True] * (n - f - b)
        got = paired_difference([True] * f + [False] * b + same, [False] * f + [True] * b + same)
        half = Z * math.sqrt(f + b - (f - b) ** 2 / n) / n
        ours += weight * covered([got], broken - fixed)
        naive += weight * covered([Interval(got.value, got.value - half, got.value + half)], broken - fixed)
    assert ours >= PROMISED
    if broken == 0:
        assert naive < PROMISED


@pytest.mark.parametrize(
    ("groups", "rate", "within"), [(20, 0.05, 0.8), (20, 0.5, 0.2), (80, 0.2, 0.5), (80, 0.6, 0.8)]
)
def test_cluster_bootstrap(groups: int, rate: float, within: float) -> None:
    """Beta-binomial replies: clusters of 2 to 6 with a correlation `within` of the replies in one."""
    rng = np.random.default_rng(0)
    ours: list[Interval] = []
    naive: list[Interval] = []
    spread = (1 - within) / within
    for seed in range(400):
        clusters = np.repeat(np.arange(groups), rng.integers(2, 7, groups))
        own = rng.beta(rate * spread, (1 - rate) * spread, groups)
        values = (rng.random(len(clusters)) < own[clusters]).astype(float)
        ours.append(cluster_bootstrap(values.tolist(), clusters.tolist(), seed=seed, draws=200))
        naive.append(wilson(int(values.sum()), len(values)))
    assert covered(ours, rate) >= PROMISED
    assert covered(naive, rate) < PROMISED


def test_cluster_bootstrap_of_scores() -> None:
    rng = np.random.default_rng(1)
    ours: list[Interval] = []
    naive: list[Interval] = []
    for seed in range(500):
        clusters = np.repeat(np.arange(30), 4)
        values = rng.normal(0, 1, 30)[clusters] + rng.normal(0, 1, 120)
        ours.append(cluster_bootstrap(values.tolist(), clusters.tolist(), seed=seed, draws=500))
        half = Z * values.std(ddof=1) / math.sqrt(120)
        naive.append(Interval(values.mean(), values.mean() - half, values.mean() + half))
    assert covered(ours, 0) >= PROMISED
    assert covered(naive, 0) < PROMISED


def test_paired_bootstrap() -> None:
    """20 requests, each asked in 4 epochs; what the mend does differs from request to request.

    Pairs are means over the epochs of a request. Control: each epoch as a pair of its own.
    """
    rng = np.random.default_rng(2)
    ours: list[Interval] = []
    naive: list[Interval] = []
    for seed in range(500):
        before = rng.normal(0, 1, 20)[:, None] + rng.normal(0, 0.5, (20, 4))
        after = before + rng.normal(0.5, 0.5, 20)[:, None] + rng.normal(0, 0.5, (20, 4))
        once = before.mean(axis=1).tolist(), after.mean(axis=1).tolist()
        ours.append(paired_bootstrap(*once, seed=seed, draws=500))
        naive.append(paired_bootstrap(before.ravel().tolist(), after.ravel().tolist(), seed=seed, draws=200))
    assert covered(ours, 0.5) >= PROMISED
    assert covered(naive, 0.5) < PROMISED


@pytest.mark.parametrize(("noise", "n"), [(0.02, 50), (0.1, 100), (0.3, 100)])
@pytest.mark.parametrize("measure", ["kappa", "alpha"])
def test_agreement(measure: str, noise: float, n: int) -> None:
    """Each label of the second rater is drawn anew with that chance: kappa and alpha are 1 - noise.

    Control: 1 to 1 whenever no item differs, as a percentile interval would have it.
    """
    rng = np.random.default_rng(3)
    shares = [0.5, 0.3, 0.2]
    ours: list[Interval] = []
    naive: list[Interval] = []
    for seed in range(300):
        first = rng.choice(3, n, p=shares)
        second = np.where(rng.random(n) < noise, rng.choice(3, n, p=shares), first)
        labels = first.astype(str).tolist(), second.astype(str).tolist()
        got = (
            kappa_interval(*labels, seed=seed, draws=200)
            if measure == "kappa"
            else krippendorff_alpha(labels, seed=seed, draws=200)
        )
        ours.append(got)
        naive.append(Interval(1.0, 1.0, 1.0) if got.value == 1 else got)
    assert covered(ours, 1 - noise) >= PROMISED
    if noise == 0.02:
        assert covered(naive, 1 - noise) < PROMISED


def judged(truth: Array, sensitivity: float, specificity: float, rng: np.random.Generator) -> Array:
    return (rng.random(len(truth)) < np.where(truth == 1, sensitivity, 1 - specificity)).astype(float)


@pytest.mark.parametrize(
    ("rate", "sensitivity", "specificity"), [(0.02, 0.9, 0.95), (0.3, 0.7, 0.85), (0.6, 0.9, 0.95)]
)
def test_rogan_gladen(rate: float, sensitivity: float, specificity: float) -> None:
    """A run of 200; 50 labels, half of each class, from elsewhere. Control: the judge's own rate."""
    rng = np.random.default_rng(4)
    people = np.repeat([1.0, 0.0], 25)

    def run(_: int) -> tuple[Interval, Interval]:
        verdicts = judged((rng.random(200) < rate).astype(float), sensitivity, specificity, rng)
        labelled = judged(people, sensitivity, specificity, rng)
        mended = rogan_gladen(*((column == 1).tolist() for column in (verdicts, labelled, people)))
        return mended, wilson(int(verdicts.sum()), 200)

    check(run, rate, control=rate != 0.3)


@pytest.mark.parametrize(("rate", "labels"), [(0.03, 50), (0.1, 50), (0.3, 100), (0.6, 100)])
def test_ppi(rate: float, labels: int) -> None:
    """A run of 400 of which that many are labelled at random; the judge finds 0.8 and passes 0.85.

    Control: the normal interval of the labels alone at small rates, the judge's own rate at others.
    """
    rng = np.random.default_rng(5)

    def run(_: int) -> tuple[Interval, Interval]:
        truth = (rng.random(400) < rate).astype(float)
        verdicts = judged(truth, 0.8, 0.85, rng)
        mended = ppi(verdicts.tolist(), verdicts[:labels].tolist(), truth[:labels].tolist())
        raw = wald(float(truth[:labels].mean()), labels) if rate < 0.1 else wilson(int(verdicts.sum()), 400)
        return mended, raw

    check(run, rate, control=rate != 0.3)


def check(run: Callable[[int], tuple[Interval, Interval]], truth: float, *, control: bool) -> None:
    pairs = [run(k) for k in range(300)]
    assert covered((ours for ours, _ in pairs), truth) >= PROMISED
    if control:
        assert covered((naive for _, naive in pairs), truth) < PROMISED
