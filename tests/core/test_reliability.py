"""Binned calibration errors: by hand, the slow way, the laws, what a calibrated model shows, and paired changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.metrics.reliability import (
    Outcomes,
    ece,
    ece_change,
    ece_floor,
    equal_counts,
    equal_widths,
    reliability,
)
from vlmend.core.metrics.stats import wilson
from vlmend.errors import BadParameter

Pairs = list[tuple[float, bool]]
PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def outcomes(pairs: Pairs) -> Outcomes:
    return Outcomes([p for p, _ in pairs], [right for _, right in pairs], list(range(len(pairs))))


def calibrated(count: int, seed: int) -> Outcomes:
    """Each is right as often as it is sure."""
    rng = np.random.default_rng(seed)
    sure = rng.beta(4, 1.2, count)
    return Outcomes(sure.tolist(), (rng.random(count) < sure).tolist(), list(range(count)))


def test_the_error_by_hand() -> None:
    """Bins of a half: 0.4 twice, one right: |1 - 0.8|; 0.9 and 0.7, one right: |1 - 1.6|. (0.2 + 0.6) / 4 = 0.2."""
    found = outcomes([(0.4, True), (0.4, False), (0.9, True), (0.7, False)])
    assert ece(found, equal_widths(2), seed=0).value == pytest.approx(0.2)


def test_bins_of_a_diagram_by_hand() -> None:
    found = reliability(outcomes([(0.4, True), (0.2, False), (0.9, True), (0.7, True)]), equal_widths(4))
    assert [(pytest.approx(sure), right.value, n) for sure, right, n in found] == [
        (0.2, 0.0, 1), (0.4, 1.0, 1), (0.7, 1.0, 1), (0.9, 1.0, 1),
    ]  # fmt: skip
    (both,) = reliability(outcomes([(0.4, True), (0.2, False)]), equal_widths(1))
    assert both == (pytest.approx(0.3), wilson(1, 2), 2)


@given(PAIRS, st.integers(1, 20))
def test_bins_of_a_diagram_hold_every_sample_and_give_the_error(pairs: Pairs, bins: int) -> None:
    held = outcomes(pairs)
    found = reliability(held, equal_widths(bins))
    assert sum(n for _, _, n in found) == len(pairs)
    error = sum(n * abs(right.value - sure) for sure, right, n in found) / len(pairs)
    assert error == pytest.approx(ece(held, equal_widths(bins), seed=0).value, abs=1e-9)


@given(st.floats(0, 1), st.integers(0, 40), st.integers(1, 40))
def test_of_one_confidence_p_and_accuracy_a_the_error_is_their_distance(p: float, right: int, wrong: int) -> None:
    found = outcomes([(p, True)] * right + [(p, False)] * wrong)
    wanted = abs(p - right / (right + wrong))
    for edges in (equal_widths(), equal_counts(found.confidence)):
        assert ece(found, edges, seed=0).value == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=40)
@given(PAIRS)
def test_it_is_what_the_slow_way_gives_and_never_below_the_overall_gap(pairs: Pairs) -> None:
    """Guo et al.: bins of one width that hold their upper edge; accuracy and mean confidence of each, by its share."""
    wanted = 0.0
    for k in range(15):
        inside = [(p, y) for p, y in pairs if k / 15 < p <= (k + 1) / 15 or (k == 0 and p == 0)]
        if inside:
            accuracy, confidence = (
                sum(column) / len(inside) for column in ([y for _, y in inside], [p for p, _ in inside])
            )
            wanted += len(inside) / len(pairs) * abs(accuracy - confidence)
    found = ece(outcomes(pairs), equal_widths(), seed=0)
    near_edge = any(abs(p * 15 - round(p * 15)) < 1e-9 and p not in (0, 1) for p, _ in pairs)
    assert near_edge or found.value == pytest.approx(wanted, abs=1e-9)
    overall = abs(sum(y - p for p, y in pairs)) / len(pairs)
    assert found.value >= overall - 1e-9
    assert math.isnan(found.low) or 0 <= found.low <= found.value + 1e-9 <= found.high + 2e-9


def test_adaptive_bins_hold_equally_many_and_equal_confidences_together() -> None:
    assert equal_counts([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3).tolist() == [0.2, 0.4]
    assert equal_counts([0.5] * 9, 3).tolist() == [0.5]


def test_a_calibrated_model_stays_at_its_floor_and_a_sure_one_does_not() -> None:
    """A tenth of the confidence is too much: the error is 0.1 of its mean, far above what chance gives."""
    fine = calibrated(600, 0)
    error, floor = ece(fine, equal_widths(), seed=0), ece_floor(fine.confidence, equal_widths(), seed=0)
    assert error.low < floor < error.high
    rng = np.random.default_rng(1)
    sure = np.asarray(fine.confidence)
    vain = Outcomes(fine.confidence, (rng.random(600) < 0.8 * sure).tolist(), fine.clusters)
    assert ece(vain, equal_widths(), seed=0).low > floor


def test_the_floor_falls_as_samples_grow_and_is_0_for_the_certain() -> None:
    floors = [ece_floor(calibrated(count, 2).confidence, equal_widths(), seed=0) for count in (50, 500, 5000)]
    assert floors[0] > 2 * floors[1] > 4 * floors[2] > 0
    assert ece_floor([0.0, 1.0, 1.0], equal_widths(), seed=0) == 0


def test_errors_of_batches_averaged_are_far_larger_than_the_error_of_all() -> None:
    """The pitfall that this module avoids: 4096 calibrated draws, at once and in batches of 64."""
    whole = calibrated(4096, 3)
    batches = [whole.among(set(range(start, start + 64))) for start in range(0, 4096, 64)]
    averaged = np.mean([ece(batch, equal_widths(), seed=0).value for batch in batches])
    assert averaged > 4 * ece(whole, equal_widths(), seed=0).value


def test_the_interval_covers_what_the_estimate_gives_at_this_number_of_samples() -> None:
    """60 sets of 100: with 95 % each, fewer than 52 hits has a chance below 0.5 %."""
    found = [ece(calibrated(100, seed), equal_widths(), seed=seed) for seed in range(60)]
    mean = np.mean([one.value for one in found])
    assert sum(one.low <= mean <= one.high for one in found) >= 52


def test_clusters_are_resampled_whole() -> None:
    """Each sample five times says nothing new: value and interval stay about as wide."""
    fine = calibrated(100, 4)
    five = Outcomes(*(list(column) * 5 for column in (fine.confidence, fine.right, fine.clusters)))
    one, many = (ece(each, equal_widths(), seed=0) for each in (fine, five))
    assert many.value == pytest.approx(one.value)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_change_is_told_on_common_clusters_and_against_itself_is_nothing() -> None:
    """0.75 sure, 3 of 4 right: 0. After: 1 of 4 right: 0.5. What only one side has is left out."""
    before = Outcomes([0.75] * 5, [True, True, True, False, False], [0, 1, 2, 3, "alone"])
    after = Outcomes([0.75] * 4, [True, False, False, False], [0, 1, 2, 3])
    edges = (equal_widths(), equal_widths())
    assert ece_change(before, after, edges, seed=0).value == pytest.approx(0.5)
    assert ece_change(after, after, edges, seed=0).value == 0
    fine, other = calibrated(300, 5), calibrated(300, 6)
    moved = ece_change(fine, other, edges, seed=0)
    assert moved.low < 0 < moved.high


def test_what_has_no_error_is_refused() -> None:
    for sure in ([], [1.2], [math.nan]):
        with pytest.raises(BadParameter, match=f"{len(sure)} confidences have no calibration error"):
            Outcomes(sure, [True] * len(sure), ["a"] * len(sure))
    with pytest.raises(BadParameter, match="differ in length"):
        Outcomes([0.5], [], ["a"])
