"""The rule of `mend auto`, the Pareto front and the parser of defences, on numbers in view."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.measures import Measure
from vlmend.data.sources import builtin_dataset
from vlmend.errors import BadData, BadParameter, UnknownName, UsageError
from vlmend.studies.asking import Asker
from vlmend.studies.auto import CANDIDATES, QUICK, above, beats, choice_table, choose, try_out, within_room
from vlmend.studies.defences import parse_defences
from vlmend.studies.fitting import Defence
from vlmend.studies.measuring import Outcome, Sizes, front, panels
from vlmend.testing import ScriptedTarget


def rate(value: float) -> Measure:
    return Measure("safety", "s", "m", "g", value, value, value, 100, 0, "lower")


def outcome(unsafe: float, lookalike: float, ordinary: float = 0.0, naming: float = 0.8) -> Outcome:
    """A setting on a model that answers 10 % of harmful and declines 20 % of look-alikes as text."""
    text = rate(0.1), rate(0.2), rate(0.0)
    return Outcome(
        rate(unsafe), text[0], rate(lookalike), text[1], rate(ordinary), text[2], rate(naming), rate(0.0), ()
    )


NONE = outcome(0.7, 0.0)


def test_the_one_least_above_the_text_path_wins_over_a_safer_and_dearer_one() -> None:
    """Above text: strong 0 + 30, fair 5 + 4, weak 30 + 0 points."""
    outcomes = {"none": NONE, "strong": outcome(0.05, 0.5), "fair": outcome(0.15, 0.24), "weak": outcome(0.4, 0.1)}
    assert choose(outcomes, ["strong", "fair", "weak"]) == "fair"
    assert sum(above(NONE, outcomes["fair"]).values()) == pytest.approx(0.09)
    assert within_room(NONE, outcomes["fair"])
    assert not within_room(NONE, outcomes["strong"])


def test_blinding_the_model_counts_as_much_as_over_refusal() -> None:
    outcomes = {"none": NONE, "blind": outcome(0.0, 0.2, naming=0.0), "fair": outcome(0.3, 0.2)}
    assert choose(outcomes, ["blind", "fair"]) == "fair"
    assert above(NONE, outcomes["blind"])["naming"] == pytest.approx(0.8)


def test_safer_than_text_earns_nothing_and_the_cheaper_one_wins() -> None:
    outcomes = {"none": NONE, "cheap": outcome(0.1, 0.1), "dear": outcome(0.02, 0.2)}
    assert choose(outcomes, ["cheap", "dear"]) == "cheap"


def test_one_that_another_beats_is_not_chosen_though_both_are_at_the_text_path() -> None:
    outcomes = {"none": NONE, "cheap": outcome(0.1, 0.2), "dear": outcome(0.02, 0.2), "other": outcome(0.05, 0.1)}
    assert choose(outcomes, ["cheap", "dear", "other"]) == "dear"
    assert choose(outcomes, ["cheap", "other"]) == "other"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_winner_is_beaten_by_nobody(places: list[tuple[int, int]]) -> None:
    outcomes = {"none": NONE} | {str(k): outcome(a / 10, b / 10) for k, (a, b) in enumerate(places)}
    names = [str(k) for k in range(len(places))]
    won = outcomes[choose(outcomes, names)]
    assert not any(beats(outcomes[name], won) for name in names)


def test_the_front_by_hand() -> None:
    points = {"a": (0.1, 0.5), "b": (0.2, 0.2), "c": (0.3, 0.3), "d": (0.7, 0.0)}
    assert front(points) == ["a", "b", "d"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(places: list[tuple[int, int]]) -> None:
    points = {str(k): (float(x), float(y)) for k, (x, y) in enumerate(places)}
    best = [points[name] for name in front(points)]
    for point in points.values():
        assert any(x <= point[0] and y <= point[1] for x, y in best)
        assert not any(x <= point[0] and y <= point[1] and (x, y) != point for x, y in best) or point not in best


def test_defences_are_read_with_their_settings_and_bad_ones_are_named() -> None:
    first, second = parse_defences("cmrm:alpha=0.6:anchors=all, tbop")
    assert (first.method, first.parameters) == ("cmrm", {"alpha": "0.6", "anchors": "all"})
    assert first.made().parameters["alpha"] == 0.6
    assert second.name == "tbop"
    with pytest.raises(UnknownName):
        parse_defences("no_such_method")
    with pytest.raises(UsageError, match="no k=v"):
        parse_defences("cmrm:alpha")
    with pytest.raises(BadParameter, match="It has:"):
        parse_defences("cmrm:no_such=1")


def test_a_candidate_that_cannot_be_fitted_is_left_out_with_its_reason(tmp_path: Path) -> None:
    """This model declines nothing, so that there are no refusals for NullSteer to aim at."""
    target = ScriptedTarget(lambda c, mended: "Here it is." if not mended else "I cannot help with that.")
    asked = panels(Sizes(4, 4, 4, 4, 8), "validation")
    anchors = builtin_dataset(("harmful", "lookalike"), "anchor")
    candidates = [Defence("first", "nullsteer"), Defence("second", "safety_prompt")]
    asker = Asker(target, tmp_path, 8, [RuleJudge()])  # type: ignore[arg-type]
    tried = try_out(asker, asked, candidates, anchors, tmp_path / "candidates", 0, lambda *_: None)
    assert list(tried.mends) == ["second"]
    assert "declines 0" in tried.left_out["first"]
    assert choice_table(tried, candidates, "second")["left_out"] == dict(tried.left_out)
    with pytest.raises(BadData, match="declines 0"):
        try_out(asker, asked, candidates[:1], anchors, tmp_path / "candidates", 0, lambda *_: None)


def test_every_candidate_can_be_made_and_the_quick_ones_are_candidates() -> None:
    assert all(candidate.made() for candidate in CANDIDATES)
    assert len(QUICK) == 7
    assert len({candidate.name for candidate in CANDIDATES}) == len(CANDIDATES)
