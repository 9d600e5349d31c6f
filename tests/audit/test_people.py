"""Groups of people that a model inferred: refused, or marked wherever they are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.audit.scripted_dual import titled_world

from vlmend.audit.people import check_clusters, group_names, group_of, told_groups
from vlmend.audit.suite import question_suite
from vlmend.audit.suites.fairness import embedding_association, retrieval_skew
from vlmend.audit.suites.fairness.harmful_labels import SUITE as LABELS
from vlmend.audit.suites.fairness.pronoun_resolution import SUITE as PRONOUNS
from vlmend.audit.suites.fairness.swapped_pairs import SUITE as SWAPPED
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData
from vlmend.testing import ScriptedTarget

PICTURE = noise_image(4, 0)


def said_by(data: Dataset, by: str) -> Dataset:
    rows = (replace(row, attributes={**row.attributes, "groups_by": by}) if row.image else row for row in data.examples)
    return Dataset("guessed", tuple(rows))


@pytest.mark.parametrize("suite", [retrieval_skew.SUITE, embedding_association.SUITE, LABELS, PRONOUNS])
def test_inferred_groups_are_refused_by_every_suite_of_people(suite: retrieval_skew.RetrievalSkew) -> None:
    target, data = titled_world(1.0, 0, 4)
    with pytest.raises(BadData, match="that a model inferred"):
        suite.samples(target, said_by(data, "model"), None, seed=0)


@pytest.mark.parametrize("name", ["caption_polarity", "bold"])
def test_suites_that_ask_refuse_inferred_groups_and_mark_accepted_ones(name: str) -> None:
    suite = question_suite(f"fairness/{name}")
    told = {"domain": "gender", "groups_by": "model"}
    rows = [Example(group, "", None, group, PICTURE, attributes=told) for group in ("man", "woman")]
    data = Dataset("guessed", tuple(replace(row, prompt="who is it?") for row in rows))
    with pytest.raises(BadData, match="that a model inferred"):
        suite.questions(data, None)
    assert {one.group for one in suite.questions(said_by(data, "model, accepted"), None)} == {
        "man (inferred)", "woman (inferred)",
    }  # fmt: skip


def test_pairs_of_inferred_groups_are_refused() -> None:
    data = SWAPPED.sample_data()
    with pytest.raises(BadData, match="that a model inferred"):
        SWAPPED.samples(ScriptedTarget(lambda _: ""), said_by(data, "model"), None, seed=0)  # type: ignore[arg-type]


def test_accepted_ones_are_told_apart_and_still_match_what_is_expected() -> None:
    target, data = titled_world(12.0, 0, 4)
    accepted = said_by(data, "model, accepted")
    plain, marked = (
        {(row.name, row.group): row.value for row in retrieval_skew.SUITE.measures(
            retrieval_skew.SUITE.samples(target, given, None, seed=0), 0)}
        for given in (data, accepted)
    )  # fmt: skip
    assert marked == pytest.approx(plain)
    assert {row.group for row in told_groups(accepted).examples} == {"man (inferred)", "woman (inferred)"}
    assert told_groups(data) is data


def test_what_rows_are_known_to_favour_is_marked_alike_and_harmful_labels_are_not() -> None:
    rows = (
        Example("a", image=PICTURE, group="man", attributes={"groups_by": "model, accepted", "favours": "man"}),
        Example("b", "a wolf", "harmful", "animal"), Example("c", "a cook"),
    )  # fmt: skip
    first, *others = told_groups(Dataset("few", rows)).examples
    assert first.group == first.attributes["favours"] == "man (inferred)"
    assert tuple(others) == rows[1:]


def test_a_file_of_inferred_groups_says_so_in_its_notes(tmp_path: Path) -> None:
    row = {"prompt": "who?", "category": "man", "attributes": {"groups_by": "model, accepted"}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"prompt": "and who?"}) + "\n")
    notes = read_data(str(tmp_path / "rows.jsonl")).notes
    assert notes == ("A model inferred the groups of 1 of 2 rows: its errors are part of what is told.",)


@pytest.mark.parametrize("unknown", ["", " ", "unknown", "Unknown", "-1", "N/A"])
def test_unknown_is_no_group(unknown: str) -> None:
    assert group_of(Example("a", attributes={"race": unknown}), "race") == ""


def test_attributes_of_two_to_twenty_values_are_groups() -> None:
    rows = [
        Example(str(k), group="all", attributes={"id": str(k), "age": str(k % 20), "नाम": "क" if k % 2 else "ख"})
        for k in range(40)
    ]
    assert group_names(rows) == ["age", "नाम"]


def test_a_cluster_of_two_groups_is_named() -> None:
    rows = [Example(str(k), group=("man", "woman")[k], attributes={"cluster": "anna"}) for k in range(2)]
    with pytest.raises(BadData, match="anna"):
        check_clusters(Dataset("mixed", tuple(rows)), rows)
