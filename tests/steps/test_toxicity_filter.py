"""toxicity_filter: cut-offs, recall, reasons that add up, and whom it removes, with a planted lean and without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmend.core.contracts import DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.steps.safety.toxicity_filter import ToxicityFilter, score_words


def scored(*values: tuple[str, float], **more: str) -> Dataset:
    rows = (Example(name, caption=f"c {name}", attributes={"toxicity": f"{score}", **more}) for name, score in values)
    return Dataset("d", tuple(rows))


def ids(edit: DataEdit) -> str:
    return "".join(row.id for row in edit.data.examples)


THREE = scored(("a", 0.1), ("b", 0.5), ("c", 0.9))


def test_rows_at_or_above_the_cut_off_go_with_their_score() -> None:
    edit = ToxicityFilter(text="given:toxicity").apply(THREE, seed=0)
    assert ids(edit) == "a"
    assert [one.why for one in edit.dropped] == ["words: 0.500 at 0.500", "words: 0.900 at 0.500"]


def test_twice_is_once_and_a_lower_cut_off_keeps_fewer() -> None:
    step = ToxicityFilter(text="given:toxicity", text_cut=0.6)
    once = step.apply(THREE, seed=0)
    assert ids(step.apply(once.data, seed=0)) == ids(once) == "ab"
    kept = [
        set(ids(ToxicityFilter(text="given:toxicity", text_cut=cut).apply(THREE, seed=0))) for cut in (0, 0.3, 0.6, 2)
    ]
    assert kept == sorted(kept, key=len)
    assert kept[0] == set()
    assert kept[-1] == {"a", "b", "c"}


def test_reasons_sum_to_removals_and_words_come_first() -> None:
    rows = tuple(
        Example(name, image=noise_image(8, 1), caption="c", attributes={"toxicity": f"{t}", "punsafe": f"{p}"})
        for name, t, p in (("both", 0.9, 0.9), ("words", 0.9, 0.1), ("picture", 0.1, 0.9), ("none", 0.1, 0.1))
    )
    edit = ToxicityFilter(text="given:toxicity", image="given:punsafe").apply(Dataset("d", rows), seed=0)
    assert [row.id for row in edit.data.examples] == ["none"]
    reasons = {row["reason"]: row["dropped"] for row in edit.tables["reasons"]}
    assert reasons == {"words": 2, "picture": 1}


def test_a_cut_off_for_a_recall_is_the_highest_that_takes_so_many() -> None:
    """Harmful rows score 0.2 to 0.9: at 0.75 six of eight go, those from 0.4 on."""
    rows = [Example(f"h{k}", "", "harmful", caption="c", attributes={"toxicity": f"0.{k}"}) for k in range(2, 10)]
    rows += [Example(f"b{k}", "", "benign", caption="c", attributes={"toxicity": f"0.{k}"}) for k in (1, 3, 5)]
    edit = ToxicityFilter(text="given:toxicity", recall=0.75).apply(Dataset("d", tuple(rows)), seed=0)
    assert [row.id for row in edit.data.examples] == ["h2", "h3", "b1", "b3"]
    with pytest.raises(BadData, match="needs rows that people called harmful"):
        ToxicityFilter(text="given:toxicity", recall=0.75).apply(THREE, seed=0)


def test_a_planted_marker_is_removed_at_full_recall(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("brillig\n")
    rows = tuple(Example(f"{k}", caption="a brillig tove" if k % 10 == 0 else "a tove") for k in range(200))
    edit = ToxicityFilter(text=f"words:{file}").apply(Dataset("d", rows), seed=0)
    assert {one.example.id for one in edit.dropped} == {f"{k}" for k in range(0, 200, 10)}


def people(lean: float) -> Dataset:
    """200 harmless rows of each of two groups, scores of uniform draws, the one group's with something on top."""
    draws = np.random.default_rng(3).random((2, 200)) * 0.6
    rows = (
        Example(f"{who}{k}", "", "benign", who, caption="c", attributes={"toxicity": f"{draws[g, k] + lean * g}"})
        for g, who in enumerate(("one", "other"))
        for k in range(200)
    )
    return Dataset("people", tuple(rows))


def test_a_filter_that_leans_is_told_by_whom_it_removes_and_one_that_does_not_is_not() -> None:
    leaning = ToxicityFilter(text="given:toxicity").apply(people(0.3), seed=0).tables
    (row,) = leaning["harmless rows removed"]
    assert row["reads"] == "some groups are removed more"
    assert row["low"] > 0.3 > row["by chance"]
    shares = {one["group"]: (one["share before"], one["share after"]) for one in leaning["removed by group"]}
    assert shares["other"][1] < shares["other"][0] == 0.5
    (clean,) = ToxicityFilter(text="given:toxicity").apply(people(0.0), seed=0).tables["harmless rows removed"]
    assert clean["reads"] != "some groups are removed more"
    assert clean["low"] <= 0.02


def test_marked_rows_all_stay_with_their_scores() -> None:
    edit = ToxicityFilter(text="grim", emit="marked").apply(
        Dataset("d", (Example("a", caption="a terrible liar"), Example("b", "42"))), seed=0
    )
    assert ids(edit) == "ab"
    assert float(edit.data.examples[0].attributes["toxicity"]) > 0.3
    assert float(edit.data.examples[1].attributes["toxicity"]) == 0
    assert not edit.dropped


def test_rows_without_a_score_stay_and_are_counted() -> None:
    data = Dataset(
        "d", (*THREE.examples, Example("x", caption="c"), Example("y", caption="c", attributes={"toxicity": "?"}))
    )
    edit = ToxicityFilter(text="given:toxicity").apply(data, seed=0)
    assert ids(edit) == "axy"
    assert list(edit.tables["not scored"]) == [{"why": "words: no score by given:toxicity", "rows": 2}]


def test_a_judge_of_harm_can_score_and_one_of_refusals_cannot() -> None:
    with pytest.raises(BadParameter, match="not whether it harms"):
        score_words("judge:rules", ["a"])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadParameter, match="cannot be filtered so"):
        ToxicityFilter(text="", recall=2)
    with pytest.raises(BadData, match="holds nothing that given:toxicity scores"):
        ToxicityFilter(text="given:toxicity").apply(Dataset("d", (Example("a", caption="c"),)), seed=0)
