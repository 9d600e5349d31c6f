"""safety/data_toxicity: planted rates come back, by class, behind a filter of pictures, by whom captions name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vlmend.audit.suites.safety.data_toxicity import SUITE, DataToxicity
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.core.metrics.stats import wilson
from vlmend.errors import BadData


def told(data: Dataset, suite: DataToxicity = SUITE) -> dict[tuple[str, str], Measure]:
    samples = suite.samples(data, None, None, seed=0)
    return {(row.name, row.group): row for row in suite.measures(samples, seed=0)}


def scored(*scores: float, name: str = "hateful", **more: str) -> Dataset:
    rows = (
        Example(f"r{k}", caption=f"caption {k}", attributes={name: f"{score}", **more})
        for k, score in enumerate(scores)
    )
    return Dataset("scored", tuple(rows))


@pytest.fixture
def lexicon(tmp_path: Path) -> DataToxicity:
    """A made-up word stands for hate, so that truth is known."""
    file = tmp_path / "words.txt"
    file.write_text("brillig\n")
    return DataToxicity(scorer=f"words:{file}")


def test_seven_planted_captions_of_two_hundred_are_three_and_a_half_percent(lexicon: DataToxicity) -> None:
    rows = (Example(f"r{k}", caption=f"a {'brillig' if k % 28 == 5 else 'plain'} thing {k}") for k in range(200))
    seven = Dataset("planted", tuple(rows))
    row = told(seven, lexicon)["hate_content_rate", "any"]
    assert (row.value, row.low, row.high, row.n) == (0.035, *wilson(7, 200)[1:], 200)
    assert row.judge == "words of words.txt"
    clean = Dataset("clean", tuple(row for row in seven.examples if "brillig" not in (row.caption or "")))
    assert told(clean, lexicon)["hate_content_rate", "any"].value == 0


def test_the_rate_falls_over_the_threshold_from_one() -> None:
    (curve,) = SUITE.curves(SUITE.samples(scored(0.0, 0.2, 0.5, 0.9), None, None, seed=0))
    values = [point.value for point in curve.points]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert [p.value for p in curve.points if p.x in (0.2, 0.5, 0.9, 1.0)] == [0.75, 0.5, 0.25, 0]


def test_two_sets_together_have_the_mean_weighted_by_size(lexicon: DataToxicity) -> None:
    def some(name: str, bad: int, n: int) -> Dataset:
        rows = (Example(f"{name}{k}", caption="brillig" if k < bad else "plain") for k in range(n))
        return Dataset(name, tuple(rows))

    one, other = some("a", 3, 10), some("b", 1, 30)
    both = Dataset("both", (*one.examples, *other.examples))
    rates = [told(data, lexicon)["hate_content_rate", "any"] for data in (one, other, both)]
    assert rates[2].value == pytest.approx((10 * rates[0].value + 30 * rates[1].value) / 40)


def test_any_is_the_largest_class_and_classes_stand_beside_it() -> None:
    rows = tuple(
        Example(f"r{k}", caption="c", attributes={"hateful": f"{a}", "aggressive": f"{b}"})
        for k, (a, b) in enumerate([(0.9, 0.1), (0.1, 0.6), (0.2, 0.2), (0.7, 0.8)])
    )
    found = told(Dataset("d", rows))
    shares = [found["hate_content_rate", name].value for name in ("any", "hateful", "aggressive")]
    assert shares == [0.75, 0.5, 0.5]
    assert found["hate_content_rate", "any"].judge == "scores of the rows"


def test_a_filter_of_pictures_leaves_hateful_words_behind() -> None:
    """Ten unsafe pictures with kind words, ten safe ones of which four have hateful words."""
    rows = [Example(f"u{k}", caption="c", attributes={"toxicity": "0.1", "punsafe": "0.9"}) for k in range(10)]
    rows += [
        Example(f"s{k}", caption="c", attributes={"toxicity": "0.9" if k < 4 else "0.1", "punsafe": "0.2"})
        for k in range(10)
    ]
    found = told(Dataset("d", tuple(rows)))
    assert found["hate_content_rate", "any"].value == 0.2
    assert ("hate_content_rate", "any, pictures below 0.1") not in found
    assert found["hate_content_rate", "any, pictures below 0.3"].value == 0.4
    assert found["nsfw_rate", "pictures"].value == 0.5


def test_unsafe_pictures_are_told_by_whom_the_caption_names() -> None:
    rows = [
        Example(f"{who}{k}", caption=f"a {who} at work", attributes={"toxicity": "0", "punsafe": f"{k < bad:d}"})
        for who, bad in (("woman", 6), ("man", 1))
        for k in range(10)
    ]
    found = told(Dataset("d", tuple(rows)))
    assert found["nsfw_rate", "pictures, names women"].value == 0.6
    assert found["nsfw_rate", "pictures, names men"].value == 0.1


def test_the_detector_is_held_against_the_labels_of_people() -> None:
    """Flagged: a, b, c, of which a and b are harmful; harmful: a, b, d."""
    marks = (
        ("a", "harmful", 0.9),
        ("b", "harmful", 0.7),
        ("c", "benign", 0.6),
        ("d", "harmful", 0.1),
        ("e", None, 0.9),
    )
    rows = tuple(Example(k, "", label, caption=k, attributes={"hateful": f"{s}"}) for k, label, s in marks)
    found = told(Dataset("d", rows))
    assert found["detector_precision", "any"].value == pytest.approx(2 / 3)
    assert found["detector_recall", "any"].value == pytest.approx(2 / 3)
    assert found["detector_recall", "any"].unscored == 1


def test_scores_that_are_none_are_unscored_and_named() -> None:
    data = scored(0.9, 0.1, 2.0, math.nan)
    samples = SUITE.samples(data, None, None, seed=0)
    assert [bool(sample.values) for sample in samples] == [True, True, False, False]
    assert samples[2].reason == "no score from 0 to 1: hateful"
    row = told(data)["hate_content_rate", "any"]
    assert (row.n, row.unscored, row.value) == (2, 2, 0.5)


def test_pictures_that_no_scorer_can_read_are_unscored_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmend.audit.suites.safety.data_toxicity.have", lambda name: name == "grim")
    suite = DataToxicity(scorer="grim")
    data = Dataset("d", (Example("a", image=noise_image(16, 1), caption="a tree"),))
    samples = suite.samples(data, None, None, seed=0)
    assert samples[1].reason == "nsfw is not installed (extra moderation)"
    picture = {row.group: row for row in suite.measures(samples, 0)}["pictures"]
    assert (picture.n, picture.unscored) == (0, 1)


def test_rows_without_words_are_refused() -> None:
    with pytest.raises(BadData, match="has no words"):
        SUITE.samples(Dataset("d", (Example("a", image=noise_image(16, 1)),)), None, None, seed=0)
