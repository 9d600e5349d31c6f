"""fairness/answer_attribution: replies of a tiny model, and data of the mini world whose boxes are right."""

from __future__ import annotations

import numpy as np
import pytest

from vlmend.audit.explaining.shown import region_of
from vlmend.audit.suites.fairness.answer_attribution import SUITE
from vlmend.errors import BadData
from vlmend.phantom.mini.questions import colours_in_place, sizes_in_place
from vlmend.phantom.mini.scenes import INKS
from vlmend.testing.fakes import tiny_vlm


def test_a_reply_has_a_map_and_its_checks() -> None:
    samples = SUITE.samples(tiny_vlm(), SUITE.sample_data(), 1, seed=0)
    assert [sample.group for sample in samples] == ["man", "woman"]
    for sample in samples:
        assert sample.text.startswith("A picture of ")
        assert 0 <= sample.values["share"] <= 1
        assert 0.2 < sample.values["share_floor"] < 0.8
        assert {"over_shuffled", "deletion_gain", "insertion_gain"} <= set(sample.values)
    rows = {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}
    assert rows["share", "man"].value == samples[0].values["share"]
    assert rows["complete", "man"].n == 1


def test_data_without_places_are_refused() -> None:
    from vlmend.phantom.mini.questions import questions

    assert not SUITE.applies(questions(3))
    with pytest.raises(BadData, match="none says where"):
        SUITE.samples(tiny_vlm(), questions(3), None, seed=0)


def test_the_box_holds_the_thing_that_is_asked_about() -> None:
    """Inside is its ink, up to the tint; the other things have other colours or lie elsewhere."""
    for row in colours_in_place(12).examples:
        region, colour = region_of(row), row.answers[0].split()[1]
        assert row.image is not None
        assert region is not None
        near = (abs(np.asarray(row.image.decode()).astype(int) - np.array(INKS[colour])) <= 10).all(-1)
        assert near[region].sum() > 20
        assert region.mean() == 0.25


def test_sizes_stand_on_the_ground_of_their_size_and_on_the_other() -> None:
    rows = sizes_in_place(8).examples
    assert [row.group for row in rows] == ["usual ground", "other ground"] * 4
    assert all({row.answers[0], row.attributes["against"]} == {"big", "small"} for row in rows)
    for row in rows:
        assert row.image is not None
        white = np.asarray(row.image.decode())[0, 0].min() > 230
        assert white == ((row.answers[0] == "big") == (row.group == "usual ground"))
