"""fairness/group_outcomes on planted worlds: worse for one group, and for none where nothing is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.outcome_tables import outcome_frame
from vlmend.audit.suites.fairness.group_outcomes import AUC, ES_AUC, ODDS, PARITY, SPREAD, SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.core.metrics.outcomes import Decided, by_chance, es_auc, limits, outcomes, resampled_outcomes, weighted_auc
from vlmend.core.metrics.stats import wilson
from vlmend.data.outcomes import OUTCOME, noisy_for, people_outcomes
from vlmend.errors import BadData

GROUPS = ("अ", "woman")
"""Names of groups may be in any script."""

Shift = Callable[[int, str, bool], float]
"""Of a picture's number, group and answer: how much more it looks like a yes."""


def world(shift: Shift, count: int = 160) -> tuple[ScriptedDual, Dataset]:
    """Half of each group is a yes; scores are 1 or -1 by the answer, with noise, and what is planted."""
    rng = np.random.default_rng(0)
    images: dict[str, torch.Tensor] = {}
    rows: list[Example] = []
    for k in range(count):
        image, group, true = noise_image(4, k), GROUPS[k % 2], k % 4 < 2
        score = (1.0 if true else -1.0) + rng.normal(0, 0.8) + shift(k, group, true)
        images[image.digest] = torch.tensor([np.cos(np.pi / 4 - score / 10), np.sin(np.pi / 4 - score / 10)])
        told = {"name": group, OUTCOME: "yes" if true else "no", "cluster": f"person {k // 4}-{group}"}
        rows.append(Example(str(k), "", None, "", image, "someone", attributes=told))
    texts = [Example(answer, answer, attributes={OUTCOME: answer}) for answer in ("yes", "no")]
    spoken = {"yes": torch.tensor([1.0, 0.0]), "no": torch.tensor([0.0, 1.0])}
    return ScriptedDual(images, spoken), Dataset("people", (*rows, *texts))


def measured(target: ScriptedDual, data: Dataset) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), seed=0)}


@cache
def rows_of(kind: str) -> dict[tuple[str, str], Measure]:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 3, 160)
    planted: dict[str, Shift] = {
        "fair": lambda k, group, true: 0.0,
        "drawn to yes": lambda k, group, true: 1.5 if group == GROUPS[0] else -1.5,
        "noisy": lambda k, group, true: float(noise[k]) if group == GROUPS[0] else 0.0,
    }
    return measured(*world(planted[kind]))


def test_the_probe_finds_the_noisier_group_and_nothing_in_a_fair_world() -> None:
    noisy, fair = rows_of("noisy"), rows_of("fair")
    assert noisy["probe_auc", "name: अ"].high < noisy["probe_auc", "name: woman"].low
    assert noisy["probe_auc_spread", "name"].low > noisy["probe_auc_spread", "name"].floor
    assert fair["probe_odds_difference", "name"].low < fair["probe_odds_difference", "name"].floor
    assert not noisy["probe_odds_difference", "name"].says.startswith("says")


def test_a_group_that_is_drawn_to_yes_is_found() -> None:
    rows = rows_of("drawn to yes")
    for name in (PARITY, ODDS):
        assert rows[name, "name"].low > rows[name, "name"].floor > 0
    assert rows["selection_rate", "name: अ"].value > 0.7 > 0.3 > rows["selection_rate", "name: woman"].value
    assert rows[AUC, "name: अ"].value == pytest.approx(rows[AUC, "name: woman"].value, abs=0.08)


def test_a_group_whose_pictures_are_worse_is_found() -> None:
    rows = rows_of("noisy")
    assert rows[AUC, "name: अ"].high < rows[AUC, "name: woman"].low
    assert rows[SPREAD, "name"].low > rows[SPREAD, "name"].floor
    assert rows[ES_AUC, "name"].value < rows[ES_AUC, "name"].floor < rows[AUC, "all"].value


def test_nothing_is_found_where_nothing_is_planted() -> None:
    rows = rows_of("fair")
    for name in (SPREAD, PARITY, ODDS):
        assert rows[name, "name"].low <= rows[name, "name"].floor
    assert rows[ES_AUC, "name"].high >= rows[ES_AUC, "name"].floor


def decided(groups: list[str], scores: list[float], truth: list[bool]) -> Decided:
    return Decided(scores, truth, [score > 0 for score in scores], groups, [str(k) for k in range(len(scores))])


def test_the_numbers_by_hand() -> None:
    """Of group a, 3 of 4 pairs are in order; of b all; of all together 15 of 16."""
    one = decided(list("aaaabbbb"), [2.0, -1.0, 0.5, -2.0, 3.0, 1.0, -3.0, -4.0], [True, True, False, False] * 2)
    found = outcomes(one)
    assert found.aucs[0].tolist() == [0.75, 1.0]
    assert found.auc[0] == 15 / 16
    assert found.es_auc[0] == pytest.approx((15 / 16) / (1 + 3 / 16 + 1 / 16))
    assert found.auc_spread[0] == pytest.approx(0.25 / (15 / 16))
    assert (found.parity[0], found.odds[0]) == (0.0, 0.5)


def test_equal_aucs_make_es_auc_the_auc() -> None:
    assert es_auc(np.array([0.8]), np.array([[0.8, 0.8, 0.8]])).tolist() == [0.8]


answers = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-3, 3), st.booleans()), min_size=12, max_size=40
).filter(lambda rows: all({t for g, _, t in rows if g == name} == {True, False} for name in {g for g, _, _ in rows}))


@settings(max_examples=25, deadline=None)
@given(answers)
def test_es_auc_is_at_most_the_auc_and_differences_are_fairlearns(rows: list[tuple[str, int, bool]]) -> None:
    one = decided([g for g, _, _ in rows], [float(s) for _, s, _ in rows], [t for _, _, t in rows])
    found, frame = outcomes(one), outcome_frame(one)
    assert found.es_auc[0] <= found.auc[0] + 1e-12
    assert found.parity[0] == pytest.approx(frame.parity, abs=1e-12)
    assert found.odds[0] == pytest.approx(frame.odds, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(1, 3)), min_size=2, max_size=20))
def test_a_weight_is_a_repeated_picture(rows: list[tuple[int, bool, int]]) -> None:
    scores, truth, weights = zip(*rows, strict=True)
    repeated = [(float(s), t) for s, t, w in rows for _ in range(w)]
    one = weighted_auc(np.array(scores, float), np.array(truth), np.array([weights], float))
    same = weighted_auc([s for s, _ in repeated], [t for _, t in repeated], np.ones((1, len(repeated))))
    assert one[0] == pytest.approx(same[0], nan_ok=True)


def test_a_perfect_decision_has_no_odds_difference_and_the_gap_of_base_rates() -> None:
    truth = [True, True, True, False, True, False, False, False]
    one = decided(list("aaaabbbb"), [1.0 if true else -1.0 for true in truth], truth)
    assert (outcomes(one).odds[0], outcomes(one).parity[0]) == (0.0, 0.5)
    assert by_chance(one, seed=0, draws=20)["odds"] == 0.0


def test_a_group_of_few_or_of_one_answer_is_shown_and_not_ranked() -> None:
    target, data = world(lambda k, group, true: 0.0)
    few = {"2": "rare", "6": "rare", "10": "rare"}
    rows = tuple(
        replace(row, attributes={**row.attributes, "name": few[row.id], "cluster": row.id}) if row.id in few else row
        for row in data.examples
    )
    found = measured(target, Dataset("few", rows))
    assert found["selection_rate", "name: rare"].n == 3
    assert (AUC, "name: rare") not in found
    plain = rows_of("fair")
    assert found[PARITY, "name"].n == plain[PARITY, "name"].n - 3
    assert found[PARITY, "name"].unscored == 3


def test_unknown_is_never_a_group() -> None:
    target, data = world(lambda k, group, true: 0.0)
    unknown = ("-1", "Unknown", " ")
    rows = tuple(
        replace(row, attributes={**row.attributes, "name": unknown[k]}) if k < 3 else row
        for k, row in enumerate(data.examples)
    )
    found = measured(target, Dataset("unknown", rows))
    assert {group for name, group in found if name == "selection_rate"} == {"all", "name: अ", "name: woman"}
    assert found["selection_rate", "all"].n == 160


def test_groups_that_a_model_inferred_are_refused_unless_accepted_and_then_marked() -> None:
    target, data = world(lambda k, group, true: 0.0)

    def told(by: str) -> Dataset:
        rows = (replace(r, attributes={**r.attributes, "groups_by": by}) if r.image else r for r in data.examples)
        return Dataset("inferred", tuple(rows))

    with pytest.raises(BadData, match="that a model inferred") as problem:
        SUITE.samples(target, told("model"), None, seed=0)
    assert "model, accepted" in problem.value.hint
    found = measured(target, told("model, accepted"))
    assert (AUC, "name: woman (inferred)") in found


def test_a_person_of_two_groups_is_refused() -> None:
    target, data = world(lambda k, group, true: 0.0)
    rows = tuple(replace(r, attributes={**r.attributes, "cluster": "anna"}) if r.image else r for r in data.examples)
    with pytest.raises(BadData, match=r"1 clusters with pictures of more than one name \(first: anna\)"):
        SUITE.samples(target, Dataset("mixed", rows), None, seed=0)


def test_a_picture_that_cannot_be_read_is_a_row_without_score() -> None:
    target, data = world(lambda k, group, true: 0.0)
    broken = replace(data.examples[0], image=Image(b"no picture", "broken"))
    found = measured(target, Dataset("broken", (broken, *data.examples[1:])))
    assert (found["selection_rate", "cannot be read"].n, found["selection_rate", "cannot be read"].unscored) == (0, 1)
    assert found[AUC, "all"].n == 159


@pytest.mark.parametrize("left_out", ["pictures", "texts", "groups"])
def test_data_that_decide_nothing_are_refused(left_out: str) -> None:
    target, data = world(lambda k, group, true: 0.0)
    rows = data.examples
    if left_out == "groups":
        rows = tuple(replace(row, attributes={OUTCOME: row.attributes[OUTCOME]}) for row in rows)
    else:
        rows = tuple(row for row in rows if (row.image is None) == (left_out == "pictures"))
    with pytest.raises(BadData, match="outcome is yes"):
        SUITE.samples(target, Dataset("bad", rows), None, seed=0)


def test_only_data_with_answers_and_texts_for_them_are_for_this_suite() -> None:
    data = world(lambda k, group, true: 0.0)[1]
    assert SUITE.applies(data)
    assert not SUITE.applies(Dataset("none", data.examples[:-1]))


def test_built_in_people_have_answers_and_worse_pictures_can_be_planted() -> None:
    data = people_outcomes("held_out")
    assert SUITE.applies(data)
    pictures = [row for row in data.examples if row.image]
    assert sum(row.attributes[OUTCOME] == "yes" for row in pictures) == 200
    assert {row.attributes["gender"] for row in pictures} == {"man", "woman"}
    assert len({row.attributes["tone"] for row in pictures}) == 5
    small = Dataset("two", (pictures[0], next(r for r in pictures if r.attributes["tone"] == "dark")))
    same, noisy = noisy_for(small, "tone", "dark", 0.2, seed=0).examples
    assert same == pictures[0]
    assert noisy.image is not None
    assert noisy.image.digest != small.examples[1].image.digest  # pyright: ignore[reportOptionalMemberAccess]


def test_numbers_lie_within_their_intervals_even_where_resamples_lie_beyond() -> None:
    """Five groups alike: largest less smallest is larger in nearly every resample."""
    truth = [k % 2 == 0 for k in range(100)]
    one = decided([str(k // 2 % 5) for k in range(100)], [1.0 if true else -1.0 for true in truth], truth)
    drawn = resampled_outcomes(one, seed=0, draws=200).parity
    found = limits(0.0, drawn, one, spread=True)
    assert drawn.mean() > 0.2
    assert found.low == 0 < found.high < 0.3
    assert limits(1.0, np.ones(50), one, spread=False).low == pytest.approx(wilson(50, 50).low)
