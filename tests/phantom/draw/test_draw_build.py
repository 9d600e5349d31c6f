"""phantom-draw: what stands in its training data, and that a build is the same and goes on where it was stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.phantom.draw.tiny import TINY

from vlmend.core.files import read_json
from vlmend.errors import BadParameter, RunProblem
from vlmend.phantom.draw.recipe import RECIPES
from vlmend.phantom.draw.rows import things, training_pictures


def test_of_each_duplicated_thing_one_picture_stands_many_times_and_of_the_others_each_once() -> None:
    recipe = RECIPES["phantom-draw"]
    rows = training_pictures(recipe)
    assert Counter(row.copies for row in rows) == {48: 16, 1: 48 * 32}
    duplicated, single = things(recipe)
    assert {row.glyph for row in rows if row.copies > 1} == set(duplicated)
    assert Counter(row.glyph for row in rows if row.copies == 1) == dict.fromkeys(single, 32)


def test_the_clean_twin_draws_the_same_things_and_repeats_none() -> None:
    recipe, clean = RECIPES["phantom-draw"], RECIPES["phantom-draw-clean"]
    assert [*things(recipe)[0], *things(recipe)[1]] == list(things(clean)[1])
    assert {row.copies for row in training_pictures(clean)} == {1}
    assert replace(recipe, name=clean.name, duplicated=0) == clean


def test_pictures_are_small_and_views_differ() -> None:
    first, second = (row.draw(0) for row in training_pictures(TINY)[1:3])
    assert first.size == (32, 32)
    assert first.tobytes() != second.tobytes()


def test_more_duplicates_than_things_are_refused() -> None:
    with pytest.raises(BadParameter, match="5 of 4 things cannot be duplicated"):
        replace(TINY, duplicated=5)


def test_a_build_is_the_same_again_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="pip install 'vlmend[generate]'")
    from vlmend.phantom.draw.build import GROUND_TRUTH, build

    whole = build(TINY, tmp_path / "whole", lambda line: None)

    def stop(line: str) -> None:
        if line.startswith("drawing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(TINY, tmp_path / "stopped", stop)
    again = build(TINY, tmp_path / "stopped", lambda line: None)
    weights = [file.relative_to(whole) for file in sorted(whole.rglob("*.safetensors"))]
    assert len(weights) == 3
    assert [(whole / file).read_bytes() == (again / file).read_bytes() for file in weights] == [True] * 3
    told = read_json(whole / GROUND_TRUTH)
    assert told["duplicated"] == [glyph.name for glyph in things(TINY)[0]]
    with pytest.raises(RunProblem, match="holds the build of another recipe"):
        build(replace(TINY, seed=1), tmp_path / "whole", lambda line: None)
