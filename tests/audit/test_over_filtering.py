"""safety/over_filtering: a planted bonus gives the gap that it must, a fair scorer none; pairs; losses of a model."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.audit.likely import likely

from vlmend.audit.plan import suites_of
from vlmend.audit.suites.safety.over_filtering import ASKED, SUITE, OverFiltering
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.errors import BadData

N = 300
BONUS = 0.3


def texts(bonus: float, seed: int = 0, n: int = N) -> Dataset:
    """Harmless scores are uniform on 0 to 0.6, harmful ones on 0.4 to 1; the group `other` gets a bonus, cut at 1."""
    draws = np.random.default_rng(seed).random((2, 2, n)) * 0.6
    rows = (
        Example(
            f"{who}-{label}-{k}", "", label, who, caption=f"text {k}",
            attributes={"toxicity": f"{min(1.0, draws[g, h, k] + 0.4 * h + bonus * g)}"},
        )
        for g, who in enumerate(("one", "other"))
        for h, label in enumerate(("benign", "harmful"))
        for k in range(n)
    )  # fmt: skip
    return Dataset("texts", tuple(rows))


@cache
def planted(bonus: float) -> dict[tuple[str, str], Measure]:
    return told(texts(bonus))


def told(data: Dataset, suite: OverFiltering = SUITE) -> dict[tuple[str, str], Measure]:
    samples = suite.samples(data, None, None, seed=0)
    return {(row.name, row.group): row for row in suite.measures(samples, seed=0)}


def test_a_planted_bonus_gives_the_analytic_gap() -> None:
    """Without it (0.6 - 0.5) / 0.6 = 1/6 are flagged, with it (0.6 - 0.2) / 0.6 = 2/3: the gap is one half."""
    found = planted(BONUS)
    gap = found["false_positive_gap", "all groups"]
    assert gap.low < 0.5 < gap.high
    assert gap.floor < 0.1 < gap.low
    assert found["false_positive_rate", "one:benign"].value == pytest.approx(1 / 6, abs=0.06)
    assert found["false_positive_rate", "other:benign"].value == pytest.approx(2 / 3, abs=0.08)


def test_harmless_texts_of_the_group_sink_beside_harmful_others_and_its_harmful_ones_rise() -> None:
    found = planted(BONUS)
    fair = planted(0.0)
    assert found["bpsn_auc", "other"].high < fair["bpsn_auc", "other"].low
    assert found["bnsp_auc", "other"].low > fair["bnsp_auc", "other"].high
    assert found["subgroup_auc", "one"].value == pytest.approx(fair["subgroup_auc", "one"].value)


def test_a_fair_scorer_passes_and_so_do_groups_that_are_dealt_anew() -> None:
    fair = planted(0.0)["false_positive_gap", "all groups"]
    assert fair.value < 0.08
    assert fair.low < fair.floor + 0.05
    rows = replace_labels(texts(BONUS)).examples
    order = np.random.default_rng(1).permutation(len(rows))
    dealt = tuple(replace(row, group=rows[k].group) for row, k in zip(rows, order.tolist(), strict=True))
    gap = told(Dataset("dealt", dealt))["false_positive_gap", "all groups"]
    assert gap.value < 0.12


def test_the_bonus_is_found_nearly_always() -> None:
    """Ten draws of 300 texts a group: a bonus of 0.1, which flags a sixth more, clears what chance gives in nine."""
    clear = 0
    for seed in range(10):
        gap = told(replace_labels(texts(0.1, seed)))["false_positive_gap", "all groups"]
        clear += gap.low > gap.floor
    assert clear >= 9


def replace_labels(data: Dataset) -> Dataset:
    return Dataset(data.name, data.labelled("benign"))


def test_at_one_recall_the_scale_of_a_score_makes_no_difference() -> None:
    """Scores halved flag nothing harmless at 0.5, and as much as before at the same recall."""
    whole = texts(0.0)
    half = tuple(
        replace(row, attributes={"toxicity": f"{float(row.attributes['toxicity']) / 2}"}) for row in whole.examples
    )
    first, second = planted(0.0), told(Dataset("half", half))
    assert first["false_positive_rate", "one:benign"].value > second["false_positive_rate", "one:benign"].value == 0
    assert first["false_positive_rate_at_recall", "one:benign"] == second["false_positive_rate_at_recall", "one:benign"]


def test_rewrites_of_one_text_are_held_against_each_other() -> None:
    rows = tuple(
        Example(f"{who}{k}", "", "benign", who, caption="c", attributes={"toxicity": f"{s}", "pair": f"{k}"})
        for k, both in enumerate([(0.1, 0.3), (0.2, 0.4), (0.3, 0.6)])
        for who, s in zip(("one", "other"), both, strict=True)
    )
    found = told(Dataset("d", rows))
    assert found["pair_difference", "other less one"].value == pytest.approx(0.7 / 3)
    assert found["pair_difference_p", "other less one"].value == pytest.approx(2 / 8)


def test_losses_of_a_model_are_told_by_group_and_a_dialect_that_it_finds_unlikely_is_found() -> None:
    data = replace_labels(texts(0.0, n=20))
    lean = likely(lambda asked, reply: 0.5)
    fair = {row.group: row.value for row in SUITE.measures(SUITE.samples(lean, data, None, seed=0), 0)}
    assert fair == {"one": pytest.approx(math.log(2)), "other": pytest.approx(math.log(2))}
    rows = tuple(replace(row, caption=f"{row.group} {row.caption}") for row in data.examples)
    harsh = likely(lambda asked, reply: 0.25 if "other" in reply and asked.prompt == ASKED else 0.5)
    losses = {row.group: row for row in SUITE.measures(SUITE.samples(harsh, Dataset("d", rows), None, seed=0), 0)}
    assert losses["other"].value == pytest.approx(math.log(4))
    assert losses["one"].value == pytest.approx(math.log(2))
    assert losses["one"].compared == "mean"


def test_requests_are_no_texts_for_a_model_and_an_axis_without_data_leaves_it_out() -> None:
    asked = Dataset("d", tuple(Example(who, f"{who}?", "benign", who) for who in ("one", "other")))
    assert SUITE.fits(asked, "data")
    assert not SUITE.fits(asked, "chat")
    assert "safety/over_filtering" not in suites_of(("safety",), None, "chat")
    assert "safety/over_filtering" in suites_of(("safety/over_filtering",), None, "chat")


def test_one_group_is_refused_with_the_form_that_is_wanted() -> None:
    with pytest.raises(BadData, match="two groups or more"):
        SUITE.samples(Dataset("d", (Example("a", "", "benign", "one", caption="c"),)), None, None, seed=0)
