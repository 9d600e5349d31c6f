"""Paired tests of two runs: which samples stand behind a row, one family of p-values, and nothing that crashes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from vlmend.core.measures import Compared, Measure
from vlmend.core.metrics.paired import Evidence, Observed, evidence_of, paired_tests

SUITE = "safety/made_up"


def row(
    name: str, group: str, value: float, n: int, compared: Compared = "share", hit: tuple[str, ...] = ("yes",)
) -> Measure:
    return Measure("safety", SUITE, name, group, value, 0.0, 1.0, n, 0, "lower", hit, compared=compared)


def labelled(labels: Sequence[str], group: str = "g", condition: str = "c") -> list[Observed]:
    return [Observed(str(k), group, condition, str(k), label) for k, label in enumerate(labels)]


def of(measure: Measure, samples: Sequence[Observed]) -> list[Evidence]:
    return evidence_of([measure], {SUITE: samples})


def test_changes_of_a_share_are_counted_one_by_one() -> None:
    """6 of 8 before, 1 of 8 after: 5 went from yes to no, none the other way, so p = 2 / 2^5."""
    before = of(row("rate", "c", 6 / 8, 8), labelled(["yes"] * 6 + ["no"] * 2))
    after = of(row("rate", "c", 1 / 8, 8), labelled(["yes"] * 1 + ["no"] * 7))
    [test] = paired_tests(before, after, seed=0)
    assert (test.n, test.fixed, test.broken) == (8, 5, 0)
    assert test.p_value == test.holm == 2 / 2**5
    assert test.difference.value == -5 / 8


def test_a_mean_is_compared_by_clusters() -> None:
    """Clusters a: (1 + 3) / 2 = 2 and b: 4 before; 1 and 3 after. Both fall by 1, so p = 2 / 2^2."""
    numbers = {"a": [(1.0, 0.0), (3.0, 2.0)], "b": [(4.0, 3.0)]}
    runs = [
        [
            Observed(f"{cluster}{k}", "g", "", cluster, values={"bias": pair[run]})
            for cluster, pairs in numbers.items()
            for k, pair in enumerate(pairs)
        ]
        for run in (0, 1)
    ]
    before, after = (of(row("bias", "g", v, 3, "mean", ()), s) for v, s in zip((8 / 3, 5 / 3), runs, strict=True))
    [test] = paired_tests(before, after, seed=0)
    assert (test.n, test.difference.value, test.p_value) == (2, -1.0, 0.5)


def test_shares_and_means_are_one_family() -> None:
    """p = 2 / 2^5 = 1/16 of a share and p = 2 / 2^2 = 1/2 of a mean: Holm gives 2 x 1/16 and 1 x 1/2."""
    before = [Evidence(row("rate", "c", 1.0, 5), dict.fromkeys("abcde", 1.0))]
    after = [Evidence(row("rate", "c", 0.0, 5), dict.fromkeys("abcde", 0.0))]
    before += [Evidence(row("bias", "g", 1.0, 2, "mean"), {"x": 1.0, "y": 1.0})]
    after += [Evidence(row("bias", "g", 0.5, 2, "mean"), {"x": 0.5, "y": 0.5})]
    assert [test.holm for test in paired_tests(before, after, seed=0)] == [1 / 8, 1 / 2]


@pytest.mark.parametrize("group", ["c", "g", "g:c"])
def test_a_group_names_a_condition_a_group_or_both(group: str) -> None:
    samples = [*labelled(["yes", "no"]), *labelled(["yes"] * 3, "other", "else")]
    [found] = of(row("rate", group, 0.5, 2), samples)
    assert list(found.units.values()) == [1.0, 0.0]


def test_rows_that_are_not_compared_have_no_evidence() -> None:
    assert of(row("rate", "c", 0.5, 2, "none"), labelled(["yes", "no"])) == []


def test_unscored_samples_are_no_pairs() -> None:
    [found] = of(row("rate", "c", 0.5, 2), labelled(["yes", "unscored", "no", ""]))
    assert list(found.units) == ["0", "2"]


def test_lost_samples_are_no_evidence() -> None:
    """The row says 3 samples, or another rate, than the file holds."""
    assert of(row("rate", "c", 1 / 3, 3), labelled(["yes", "no"])) == []
    assert of(row("rate", "c", 0.9, 2), labelled(["yes", "no"])) == []


def test_samples_that_depend_on_each_other_are_no_pairs_for_mcnemar() -> None:
    twice = [Observed(f"{k}#{e}", "g", "c", str(k), "yes") for k in range(3) for e in (1, 2)]
    assert of(row("rate", "c", 1.0, 6), twice) == []


def test_rows_without_a_common_sample_are_left_out() -> None:
    before = [Evidence(row("rate", "c", 1.0, 1), {"a": 1.0})]
    after = [Evidence(row("rate", "c", 0.0, 1), {"b": 0.0})]
    assert paired_tests(before, after, seed=0) == []


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("old", "new"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("compared", ["share", "mean"])
def test_ties_and_few_samples_are_tested_too(n: int, old: float, new: float, compared: Compared) -> None:
    keys = [str(k) for k in range(n)]
    before = [Evidence(row("x", "c", old, n, compared), dict.fromkeys(keys, old))]
    after = [Evidence(row("x", "c", new, n, compared), dict.fromkeys(keys, new))]
    [test] = paired_tests(before, after, seed=0)
    assert test.p_value == (1.0 if old == new else 2 / 2**n)
    assert test.difference.value == new - old
    assert math.isnan(test.difference.low) or test.difference.low <= test.difference.value <= test.difference.high


def test_rows_that_two_judges_told_are_no_pair() -> None:
    samples = labelled(["yes"] * 6 + ["no"] * 2)
    ours, theirs = (replace(row("rate", "c", 6 / 8, 8), judge=judge) for judge in ("harmful-1", "refusal-1"))
    assert len(paired_tests(of(ours, samples), of(ours, samples), seed=0)) == 1
    assert paired_tests(of(ours, samples), of(theirs, samples), seed=0) == []
