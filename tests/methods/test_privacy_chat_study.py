"""The study of a model that answers tells the committed runs; its bench shows what it says, and a reply is exact."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tools.privacy import shown
from tools.privacy_chat import PAGE, REMEDIES, REPEATED, RUNS, STUDY, Bench, said

from vlmend.core.examples import Example
from vlmend.testing.fakes import ScriptedTarget


def bench(seed: int) -> Bench:
    base: Any = None  # nothing is asked of it
    return Bench.of(base, seed)


def test_codes_are_shown_never_once_or_16_times_and_captions_four_times() -> None:
    made = bench(0)
    counts = Counter(row.id.split("/")[0] for row in made.rows)
    assert {count for _, count in made.codes} == {0, 1, 16}
    assert all(counts[row.id] == count for row, count in made.codes)
    members = {row.id for row in made.pool if row.attributes["member"] == "yes"}
    assert {counts[row.id] for row in made.pool if row.id in members} == {REPEATED}
    assert not any(counts[row.id] for row in made.pool if row.id not in members)


def test_a_seed_deals_people_and_members_anew() -> None:
    one, other = bench(0), bench(1)
    assert [(row.id, count) for row, count in one.codes] != [(row.id, count) for row, count in other.codes]
    assert [row.id for row in one.rows] == [row.id for row in bench(0).rows]


def test_a_code_counts_when_it_is_said_word_for_word() -> None:
    rows = [Example("a", "what?", answers=("1 2 3",)), Example("b", "what?", answers=("1 2",))]
    view: Any = ScriptedTarget(lambda *_: " 1 2 3 ")
    assert said(view, rows) == [1.0, 0.0]


def test_the_committed_study_tells_the_committed_runs() -> None:
    """`python -m tools.privacy_chat study` writes it anew."""
    runs, page = json.loads(RUNS.read_text()), PAGE.read_text()
    content = STUDY.content(shown(runs))
    assert {run["method"] for run in runs} == set(REMEDIES)
    for remedy in content["remedies"]:
        assert f">{remedy['name']}, {remedy['seeds']} seeds<" in page
        assert f">{remedy['cells']['scenes'].said()}" in page
