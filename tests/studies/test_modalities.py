"""Modalities at equal utility: crossings by hand, planted memory found, noise that is drawn anew tells nothing."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tools.modalities import RUNS, VARIANTS, Inputs, Model, Pool, given_to, measured, told, trained

from vlmend.core.examples import Example
from vlmend.errors import BadParameter
from vlmend.studies.modalities import Path, at_utility, difference_at_end, difference_at_utility

SHARES = st.floats(0, 1).map(lambda x: round(x, 3))


def test_the_leak_is_read_where_the_utility_first_crosses() -> None:
    path = Path((0.2, 0.6, 0.4, 0.8), (0.5, 0.7, 0.9, 1.0))
    assert at_utility(path, 0.2) == 0.5
    assert at_utility(path, 0.4) == pytest.approx(0.6)  # half way up the first step, not where it is met again
    assert at_utility(path, 0.7) == pytest.approx(0.975)
    with pytest.raises(BadParameter, match="above"):
        at_utility(path, 0.9)


def test_at_equal_utility_who_learns_faster_gives_away_less_though_both_end_alike() -> None:
    slow = [Path((0.0, 0.4, 0.8), (0.5, 0.75, 1.0))] * 5
    fast = [Path((0.0, 0.8, 0.9), (0.5, 0.75, 1.0))] * 5
    each, mean = difference_at_utility(slow, fast, 1.0)
    assert each == [-0.25] * 5
    assert (mean.value, math.isnan(mean.low)) == (-0.25, True)  # no spread between seeds is no interval
    assert difference_at_end(slow, fast)[0] == [0.0] * 5
    assert difference_at_utility(slow, fast, 0.5)[0] == pytest.approx([-0.125] * 5)
    with pytest.raises(BadParameter, match="paired"):
        difference_at_end(slow, fast[:2])


def test_the_interval_over_seeds_is_students() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, error 0.1 / sqrt(3), and 4.303 is Student's 97.5 % at two degrees."""
    flat = [Path((0.0, 1.0), (0.5, 0.5))] * 3
    leaky = [Path((0.0, 1.0), (0.5, 0.5 + gap)) for gap in (0.1, 0.2, 0.3)]
    _, mean = difference_at_end(flat, leaky)
    assert mean.value == pytest.approx(0.2)
    assert mean.high - mean.value == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)


@given(st.lists(st.tuples(SHARES, SHARES), min_size=2, max_size=8), SHARES)
def test_a_path_against_itself_differs_by_nothing_and_sides_turned_turn_the_sign(
    points: Sequence[tuple[float, float]], share: float
) -> None:
    path = Path(tuple(x for x, _ in points), tuple(y for _, y in points))
    other = Path(path.utility[::-1], path.leak)
    assert difference_at_utility([path] * 3, [path] * 3, share)[0] == [0.0] * 3
    there, back = (difference_at_utility(*pair, share)[0] for pair in (([path], [other]), ([other], [path])))
    assert there == pytest.approx([-one for one in back])


def pool(count: int = 160, width: int = 12) -> Pool:
    """Records whose labels are drawn by chance: all that can be learnt is to be learnt by heart."""
    torch.manual_seed(0)
    inputs = {
        name: Inputs(torch.randn(count, 3, width), torch.ones(count, 3, dtype=torch.bool))
        for name in ("picture", "caption")
    }
    rows = tuple(Example(str(k), caption=str(k), group="") for k in range(count))
    return Pool(rows, inputs, torch.randint(0, 3, (count,)), 40)


def test_what_is_learnt_by_heart_is_told_and_nothing_before() -> None:
    found = measured(pool(), "picture and mark", 0, (0, 120))
    for attack, least in (("loss", 0.95), ("reference", 0.6)):  # on labels by chance the reference's losses are noise
        first, last = found[attack]
        assert abs(first - 0.5) < 0.2
        assert last > least
    assert max(found["utility"]) < 0.6  # labels by chance cannot be told of other records


def test_variants_of_a_seed_begin_alike_and_a_withheld_modality_is_not_read() -> None:
    records = pool()
    parts = records.parts(0)
    one, other = (next(trained(records, VARIANTS[name], parts, 0, 0, (0,))) for name in ("picture", "picture twice"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    withheld = told(one, records, ("picture", ""), parts[1], parts)[0]
    records.inputs["caption"].states.normal_()
    assert torch.equal(withheld, told(one, records, ("picture", ""), parts[1], parts)[0])


def test_noise_comes_from_records_of_neither_side_and_a_mark_from_the_next_of_its_own() -> None:
    records = pool()
    parts = records.parts(3)
    states = records.inputs["caption"].states
    place = {tuple(one.flatten().tolist()): k for k, one in enumerate(states)}

    def of(kind: str, part: int) -> list[int]:
        found = given_to(records, VARIANTS[f"picture and {kind}"].second, parts[part], parts, random.Random(0))
        return [place[tuple(one.flatten().tolist())] for one in found.states]

    for part in (0, 1):
        assert set(of("noise", part)) <= set(parts[-1].tolist())
        assert of("mark", part) == parts[part].roll(1).tolist()
    assert [len(part) for part in parts] == [40, 40, 40, 40]


def test_both_towers_have_as_many_parameters() -> None:
    first, second = Model(12, 3, 0).towers
    assert sum(p.numel() for p in first.parameters()) == sum(p.numel() for p in second.parameters())
    assert not torch.equal(first.layer.linear1.weight, second.layer.linear1.weight)


def test_the_study_has_five_seeds_of_every_variant() -> None:
    runs = json.loads(RUNS.read_text())
    for name in ("blind", *VARIANTS):
        assert len({run["seed"] for run in runs if run["variant"] == name}) >= 5
