"""resample_clusters: weights by hand and as laws, a planted minority found and its clean twin left alone, bad input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.steps.fairness.resample_clusters import ResampleClusters, cluster_weights


def test_weights_by_hand() -> None:
    """Sizes 6 and 2, losses 1 and 3: mean 1.5, excess 0 and 1, mean size 4; raw 1 and 1 + 1 x 4/2 = 3.

    The spread is 0.87, so two rows lie 2.4 standard errors above, beyond the 1.96 that two clusters ask for.
    """
    losses, clusters = np.array([1.0] * 6 + [3.0] * 2), ["a"] * 6 + ["b"] * 2
    found = cluster_weights(losses, clusters, 10)
    assert found == pytest.approx([2 / 3] * 6 + [2] * 2)
    assert cluster_weights(losses, clusters, 2)[-1] / cluster_weights(losses, clusters, 2)[0] == pytest.approx(2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 5)), min_size=1, max_size=30))
def test_weights_sum_to_the_rows_and_equal_losses_give_equal_weights(told: list[tuple[str, float]]) -> None:
    clusters, losses = [name for name, _ in told], np.array([loss for _, loss in told])
    found = cluster_weights(losses, clusters, 5)
    assert found.sum() == pytest.approx(len(told))
    assert found.max() / found.min() <= 5 + 1e-9
    assert cluster_weights(np.ones(len(told)), clusters, 5) == pytest.approx(np.ones(len(told)))


def test_a_cluster_with_twice_the_rows_weighs_less() -> None:
    once = cluster_weights(np.array([1.0] * 6 + [3.0] * 2), ["a"] * 6 + ["b"] * 2, 99)
    twice = cluster_weights(np.array([1.0] * 6 + [3.0] * 4), ["a"] * 6 + ["b"] * 4, 99)
    assert twice[-1] / twice[0] < once[-1] / once[0]


def picture(top: bool, warm: bool, rng: np.random.Generator) -> Image:
    """The class is whether the top is bright, faintly and noisily; the tint is loud."""
    pixels = np.full((16, 16, 3), 120.0) + rng.normal(0, 70, (16, 16, 3))
    pixels[:8] += 9 if top else -9
    pixels[:, :, 0 if warm else 2] += 60
    return Image.from_pixels(PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def world(rare: float, count: int, seed: int) -> Dataset:
    """Bright tops are warm and others cold, but for a share."""
    rng = np.random.default_rng(seed)
    rows: list[Example] = []
    for k in range(count):
        top, odd = k % 2 == 0, bool(rng.random() < rare)
        told = {"tint": "odd" if odd else "usual"}
        rows.append(
            Example(str(k), image=picture(top, top != odd, rng), answers=("up" if top else "down",), attributes=told)
        )
    return Dataset("tops", tuple(rows))


def pixels_of(rows: Sequence[Example]) -> Any:
    return np.stack([np.asarray(row.image.decode().resize((8, 8)), float).reshape(-1) for row in rows if row.image])


def accuracies(train: Dataset, test: Dataset) -> dict[str, float]:
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(pixels_of(train.examples), [row.answers[0] for row in train.examples])
    hits = probe.predict(pixels_of(test.examples)) == [row.answers[0] for row in test.examples]
    tint = np.array([row.attributes["tint"] for row in test.examples])
    return {name: float(hits[tint == name].mean()) for name in ("usual", "odd")}


def test_a_planted_minority_gains_ten_points_and_the_others_lose_little() -> None:
    """The card's bar: worst cluster at least 10 points more, the average at most 2 less."""
    data, test = world(0.05, 400, 0), world(0.5, 600, 1)
    edit = ResampleClusters(clusters=2).apply(data, seed=0)
    before, after = accuracies(data, test), accuracies(edit.data, test)
    assert after["odd"] >= before["odd"] + 0.10
    share = 0.95
    mean = [share * one["usual"] + (1 - share) * one["odd"] for one in (before, after)]
    assert mean[1] >= mean[0] - 0.02
    odd = [one.example.attributes["tint"] == "odd" for one in edit.added]
    assert sum(odd) / len(odd) > 0.9
    known = {row["attribute"]: row for row in edit.tables["what clusters know of attributes"]}
    assert known["tint"]["information"] > 5 * known["tint"]["shuffled"]


def test_the_clean_twin_gets_no_copies() -> None:
    """Without the rare tint no cluster does worse than chance would have it."""
    for seed in range(3):
        assert not ResampleClusters(clusters=2).apply(world(0.0, 400, seed), seed=0).added


def test_copies_say_what_they_are_of_and_other_rows_are_left_alone() -> None:
    data = world(0.1, 120, 2)
    held = replace(data.examples[0], id="held", attributes={"split": "test", "tint": "odd"})
    edit = ResampleClusters(clusters=2).apply(replace(data, examples=(*data.examples, held)), seed=3)
    assert edit.added
    ids = {row.id for row in data.examples}
    assert {one.example.attributes["copy_of"] for one in edit.added} <= ids
    assert edit.data.examples[:121] == (*data.examples, held)
    rows = edit.tables["clusters"]
    assert sum(row["rows"] for row in rows) == 120
    assert sum(row["rows"] * row["weight"] for row in rows) == pytest.approx(120)
    assert sum(row["copies"] for row in rows) == len(edit.added)


def test_bad_input_is_named() -> None:
    with pytest.raises(BadParameter, match="cannot be sampled so"):
        ResampleClusters(profiler="phantom-clip")
    with pytest.raises(BadParameter):
        ResampleClusters(cap=0.5)
    with pytest.raises(UsageError, match="for testing only"):
        ResampleClusters().apply(replace(world(0, 40, 0), test_only=True), seed=0)
    with pytest.raises(BadData, match="no picture with a class"):
        ResampleClusters().apply(Dataset("text", (Example("a", "Hello?"),)), seed=0)
    one = world(0, 40, 0)
    with pytest.raises(BadData, match="1 classes with 20 pictures"):
        ResampleClusters().apply(replace(one, examples=one.examples[::2]), seed=0)
