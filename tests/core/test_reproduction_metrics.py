"""The reproduction score: worked out by hand, at its ends, and 0 where members and others are dealt at random."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.metrics.membership import ByCluster
from vlmend.core.metrics.reproduction import reproduction

FLAGS = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=12)


def alone(values: list[float], name: str = "") -> ByCluster:
    return {f"{name}{k}": [value] for k, value in enumerate(values)}


def test_worked_out_by_hand() -> None:
    """16 of 20 members and 5 of 20 others: (0.8 - 0.25) / 0.75 = 0.7333."""
    found = reproduction(alone([1.0] * 16 + [0.0] * 4), alone([1.0] * 5 + [0.0] * 15), seed=0)
    assert found.value == pytest.approx(0.55 / 0.75)
    assert 0.3 < found.low < found.value < found.high < 1


def test_clusters_count_by_their_rows() -> None:
    """Two clusters of three and one rows, of which one row is reproduced: 0.25 of members, none of the others."""
    found = reproduction({"a": [0.0, 0.0, 0.0], "b": [1.0]}, alone([0.0, 0.0]), seed=0)
    assert found.value == pytest.approx(0.25)


def test_a_table_of_the_training_data_is_1_and_nothing_known_is_0() -> None:
    none = alone([0.0] * 30)
    table = reproduction(alone([1.0] * 30), none, seed=0)
    assert (table.value, table.high) == (1, 1)
    assert 0.8 < table.low < 1
    blank = reproduction(none, none, seed=0)
    assert (blank.value, blank.low) == (0, 0)
    assert 0 < blank.high < 0.2


@pytest.mark.parametrize(("members", "others"), [([1.0], [0.0] * 9), ([0.0, 1.0], [1.0] * 9), ([], [])])
def test_too_few_or_nothing_left_to_reproduce_is_not_known(members: list[float], others: list[float]) -> None:
    assert all(math.isnan(x) for x in reproduction(alone(members), alone(others), seed=0))


def test_dealt_at_random_it_is_0_in_the_mean() -> None:
    rng, values = random.Random(0), [1.0] * 15 + [0.0] * 25
    found: list[float] = []
    for _ in range(60):
        dealt = rng.sample(values, len(values))
        found.append(reproduction(alone(dealt[:20]), alone(dealt[20:]), seed=0).value)
    assert abs(sum(found) / len(found)) < 3 * 0.25 / len(found) ** 0.5


@given(FLAGS, FLAGS, st.randoms())
def test_names_and_order_of_samples_do_not_matter(
    members: list[float], others: list[float], rng: random.Random
) -> None:
    value = reproduction(alone(members), alone(others), seed=0).value
    again = reproduction(alone(rng.sample(members, len(members)), "x"), alone(others, "y"), seed=1).value
    assert again == pytest.approx(value, nan_ok=True)
