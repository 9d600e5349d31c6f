"""fairness/representation: exact counts on a generated corpus, planted shares within intervals, unknown is no group."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vlmend.audit.suites.fairness.representation import SUITE, lexicon
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.metrics.stats import wilson
from vlmend.errors import BadData


def captions(*texts: str) -> list[Example]:
    return [Example(f"r{k}", caption=text) for k, text in enumerate(texts)]


def seen(rows: list[Example], limit: int | None = None) -> list[Sample]:
    return SUITE.samples(Dataset("set", tuple(rows)), None, limit, seed=0)


def measured(rows: list[Example]) -> dict[tuple[str, str], Measure]:
    return {(row.name, row.group): row for row in SUITE.measures(seen(rows), seed=0)}


def label(text: str, group: str = "words") -> str:
    return next(sample.label for sample in seen(captions(text)) if sample.group == group)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man and his dog", "men"), ("Two WOMEN talk.", "women"), ("a boy with his mother", "both"),
        ("a dog on a bench", "neutral"), ("a man-made lake", "neutral"), ("the manager's desk", "neutral"),
        ("a shepherd", "neutral"), ("She smiles", "women"), ("a person\u2019s hat", "neutral"),
    ],
)  # fmt: skip
def test_a_caption_is_counted_by_its_whole_words(text: str, expected: str) -> None:
    assert label(text) == expected


def test_exact_counts_on_a_generated_corpus() -> None:
    parts = {"men": ("a man walks", 41), "women": ("a woman walks", 23), "both": ("a man and a woman", 7),
             "neutral": ("a tree", 29)}  # fmt: skip
    texts = [text for text, count in parts.values() for _ in range(count)] + ["a fireman at work"] * 3
    random.Random(0).shuffle(texts)
    found = measured(captions(*texts))
    counts = {name: round(found[name, "words"].value * found[name, "words"].n) for name in parts}
    assert counts == {"men": 41, "women": 23, "both": 7, "neutral": 29 + 3}
    assert found["women_of_gendered", "words"].n == 41 + 23
    assert round(found["dated_fireman", "dated words"].value * 103) == 3
    assert found["dated_fireman", "dated words"].hit == ("fireman -> firefighter",)
    assert sum(key[1] == "dated words" for key in found) == 2


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_seventy_to_thirty_lies_within_the_interval(seed: int) -> None:
    rng = random.Random(seed)
    rows = captions(*("a man cooks" if rng.random() < 0.7 else "a woman cooks" for _ in range(400)))
    found = measured(rows)["women_of_gendered", "words"]
    assert found.low <= 0.3 <= found.high
    assert not found.low <= 0.5 <= found.high
    assert (found.value, found.low, found.high) == wilson(round(found.value * 400), 400)


def test_occupations_have_no_association_where_genders_are_even_and_one_where_they_are_bound() -> None:
    even = captions(*[f"a {gender} who is a {job}" for gender in ("man", "woman") for job in ("nurse", "cook")] * 10)
    assert measured(even)["npmi_women", "nurse"].value == pytest.approx(0, abs=1e-12)
    bound = measured(captions(*(["a woman, a nurse"] * 12 + ["a man, a cook"] * 20 + ["a nurse", "a tree"])))
    assert bound["npmi_women", "nurse"].value == pytest.approx(1)
    assert bound["npmi_men", "nurse"].value == -1
    assert (bound["npmi_women", "nurse"].n, bound["npmi_men", "cook"].n) == (12, 20)


def test_an_occupation_that_is_hardly_mentioned_is_not_shown() -> None:
    found = measured(captions(*(["a woman, a nurse"] * 9 + ["two men, both farmers"] * 10)))
    assert ("npmi_women", "nurse") not in found
    assert ("npmi_men", "farmer") in found


def grouped(*values: str, name: str = "gender") -> list[Example]:
    return [Example(f"r{k}", caption="x", attributes={name: value} if value else {}) for k, value in enumerate(values)]


def test_what_is_not_known_is_a_category_and_no_group() -> None:
    rows = grouped(*["woman"] * 3, *["man"] * 5, *[""] * 2)
    reference = Example("ref", caption="A census", attributes={"reference": "gender", "woman": "0.5", "man": "0.5"})
    found = measured([*rows, reference])
    shares = {name: found[f"share_{name}", "gender"].value for name in ("woman", "man", "unknown")}
    assert shares == {"woman": 0.3, "man": 0.5, "unknown": 0.2}
    # of the 8 that are known 3 are women: 0.375 / 0.5
    ratio = found["ratio_woman", "gender"]
    assert (ratio.value, ratio.n, ratio.unscored, ratio.unit) == (0.75, 8, 2, "number")
    assert ("ratio_unknown", "gender") not in found
    assert found["neutral", "words"].n == 10


@pytest.mark.parametrize(
    "declared", [{"woman": "0.5", "man": "0.6"}, {"woman": "half", "man": "half"}, {}, {"woman": "-1", "man": "2"}]
)
def test_a_reference_that_holds_no_shares_is_refused(declared: dict[str, str]) -> None:
    rows = [*grouped("woman", "man"), Example("ref", attributes={"reference": "gender"} | declared)]
    with pytest.raises(BadData, match="Row ref declares no shares"):
        seen(rows)


def test_crossed_groups_show_the_cells_that_nobody_is_in() -> None:
    pairs = [("woman", "light")] * 3 + [("man", "light")] * 4 + [("man", "dark")] * 1 + [("man", "")] * 2
    rows = [
        Example(f"r{k}", caption="x", attributes={"gender": g} | ({"tone": t} if t else {}))
        for k, (g, t) in enumerate(pairs)
    ]
    found = {row.hit[0]: row for row in SUITE.measures(seen(rows), seed=0) if row.group == "gender x tone"}
    assert {cell: round(row.value * row.n) for cell, row in found.items()} == {
        "man & dark": 1, "man & light": 4, "man & unknown": 2, "woman & dark": 0, "woman & light": 3,
    }  # fmt: skip
    assert found["woman & dark"].high > 0


def test_an_attribute_with_a_value_a_row_is_an_id_and_unscored() -> None:
    rows = grouped(*(f"v{k}" for k in range(30)), name="code")
    assert [(row.name, row.n, row.unscored) for row in measured(rows).values() if row.group == "code"] == [
        ("share", 0, 1)
    ]
    assert next(sample.reason for sample in seen(rows) if sample.group == "code") == "30 values: rather ids than groups"


def test_captions_of_one_picture_count_as_one_witness(tmp_path: Path) -> None:
    def share(pictures: int) -> Measure:
        rows = [
            Example(f"{k}-{j}", caption="a man" if k % 2 else "a woman", image=Image.from_path(tmp_path / f"{k}.png"))
            for k in range(pictures) for j in range(100 // pictures)
        ]  # fmt: skip
        return measured(rows)["men", "words"]

    assert share(20).value == share(100).value == 0.5
    assert share(20).high - share(20).low > 1.5 * (share(100).high - share(100).low)


def test_rows_without_words_are_unscored() -> None:
    found = measured([*captions("a man"), Example("b", attributes={"gender": "woman"})])
    assert (found["men", "words"].n, found["men", "words"].unscored) == (1, 1)


def test_skin_is_a_statistic_of_the_pixels_in_the_region_that_a_row_names() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6] = (224, 172, 140)
    image = Image.from_pixels(PIL.Image.fromarray(pixels))
    rows = [Example("a", "x", image=image, attributes={"skin_region": "2,2,6,6"}),
            Example("b", "x", image=image, attributes={"skin_region": "9,9,12,12"}),
            Example("c", "x", attributes={"skin_region": "2,2,6,6"})]  # fmt: skip
    found = measured(rows)["ita", "skin region"]
    assert found.value == pytest.approx(42, abs=4)
    assert (found.n, found.unscored) == (1, 2)
    assert {s.reason for s in seen(rows) if s.group == "skin region"} == {
        "", "the region lies outside the picture", "no picture",
    }  # fmt: skip


def test_a_limit_counts_rows_and_ids_are_unique() -> None:
    rows = captions(*(f"a man, a nurse, a fireman {k}" for k in range(10)))
    found = seen(rows, limit=4)
    assert sum(sample.group == "words" for sample in found) == 4
    assert len({sample.id for sample in seen(rows)}) == len(seen(rows))


def test_data_without_words_and_groups_is_refused() -> None:
    with pytest.raises(BadData, match="no words and no groups"):
        seen([Example("a", image=Image(b"x"))])
    assert not SUITE.applies(Dataset("set", (Example("a"),)))


def test_every_dated_term_is_found_and_its_replacement_is_not_dated() -> None:
    for term in lexicon().dated:
        old, _, new = term.partition(" -> ")
        assert term in label(f"There is {old} here.", "dated words").split("; ")
        assert label(f"There is {new} here.", "dated words") == "none"


def test_lists_of_men_and_women_have_no_word_in_common() -> None:
    assert not any(lexicon().women.fullmatch(word) for word in ("man", "he", "boys", "husband", "mr"))
    assert math.isnan(measured(grouped("a", "b"))["women_of_gendered", "words"].value)
