"""How bad a number is on one scale, worked out by hand, and what a first sentence names."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.measures import Axis, Better, Measure, Scorecard
from vlmend.core.severity import leading, severity
from vlmend.report.compare import sentence


def row(
    value: float, better: Better = "lower", *, axis: Axis = "safety", suite: str = "safety/a", group: str = "g",
    floor: float = math.nan, against: str = "", n: int = 10, says: str = "",
) -> Measure:  # fmt: skip
    return Measure(
        axis, suite, "rate", group, value, value, value, n, 0, better, floor=floor, against=against, says=says
    )  # fmt: skip


def number(value: float, better: Better, floor: float, ceiling: float) -> Measure:
    return replace(row(value, better, floor=floor), unit="number", ceiling=ceiling)


def card(*rows: Measure) -> Scorecard:
    return Scorecard("toy", (), 0, {}, rows, {})


@pytest.mark.parametrize(
    ("one", "found"),
    [
        (row(0.3), 0.3),  # of the way from 0 to 1
        (row(0.3, "higher"), 0.7),  # from 1 down to 0
        (row(0.55, floor=0.1), 0.5),  # 0.45 of the 0.9 between chance and 1
        (row(0.05, floor=0.1), 0.0),  # better than chance is no fault
        (row(0.4, against="text"), 0.25),  # 0.2 of the 0.8 between the text's 0.2 and 1
        (row(0.15, "higher", floor=0.05, against="clean"), 0.875),  # 0.7 of the 0.8 between 0.85 and chance
        (number(0.8, "higher", 0.5, 1.0), 0.4),  # an AUROC: 0.2 of the 0.5 between 1 and chance
        (number(0.5, "lower", 0.0, 2.0), 0.25),
        (row(1.0, against="full"), 0.0),  # no room between the two
    ],
)
def test_severity_is_the_share_of_the_way_from_faultless_to_worst(one: Measure, found: float) -> None:
    run = card(one, row(0.2, group="text"), row(0.85, "higher", group="clean"), row(1.0, group="full"))
    assert severity(one, run) == pytest.approx(found)


@pytest.mark.parametrize("one", [row(0.3, "neither"), row(0.3, n=0), number(3.0, "lower", 0.0, math.nan)])
def test_what_has_no_ends_no_direction_or_no_score_has_none(one: Measure) -> None:
    assert math.isnan(severity(one, card(one)))


shares = st.floats(0, 1)


@given(shares, shares, shares, st.sampled_from(["lower", "higher"]))
def test_it_lies_between_0_and_1(value: float, floor: float, other: float, better: Better) -> None:
    one = row(value, better, floor=floor, against="other")
    assert 0 <= severity(one, card(one, row(other, group="other"))) <= 1


def test_the_first_sentence_begins_with_the_worst_axis_and_names_the_worst_suite_of_each() -> None:
    """Severities: 0.3 and 0.1 of the two of safety, 0.6 of fairness; utility, of which nothing is known, is last."""
    run = card(
        row(0.1, suite="safety/b", says="leaks {value}"),
        row(0.3, says="harms {value}"),
        replace(number(9.0, "lower", 0.0, math.nan), axis="utility", suite="utility/d", says="errs {value}"),
        row(0.6, axis="fairness", suite="fairness/c", says="skews {value}"),
    )
    assert sentence(run) == "toy skews 60%, and harms 30%, and errs 9.00, 0.00 by chance."


def test_a_suite_that_is_worst_in_a_mended_run_is_named_of_both() -> None:
    suites = ("safety/a", "safety/b")
    base, mended = (
        card(*(row(value, suite=name, says="{value}") for value, name in zip(values, suites, strict=True)))
        for values in ((0.4, 0.1), (0.1, 0.9))
    )
    assert [one.suite for one in leading(base)] == ["safety/a"]
    assert [one.suite for one in leading(base, mended)] == ["safety/b"]
