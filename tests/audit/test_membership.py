"""privacy/membership: members are told where they were taught, nobody elsewhere, and nothing where blind eyes tell."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from tools.phantom.clip_memory import never_shown, taught

from vlmend.audit.blind import blind_scores, thumbnails
from vlmend.audit.suites.privacy.membership import SUITE
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.phantom.clip.queries import MEMBERS
from vlmend.pictures.changes import variants

Rows = dict[tuple[str, str], Measure]
WORDS = ("ash", "bay", "clay", "dew", "elm", "fig", "gum", "hay", "ivy", "jam", "kelp", "lake", "moss", "nut", "oak")


def measured(samples: Sequence[Sample]) -> Rows:
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def scored(count: int, gap: float, **blind: float) -> list[Sample]:
    """Pairs with drawn scores: members higher by `gap`, and by what is given for a blind score."""
    rng = np.random.default_rng(0)
    gaps = {"blind_words": 0.0, "blind_pixels": 0.0, "cosine": gap, "augmented": gap, **blind}
    return [
        Sample(
            f"{group}{k}", group, f"{group}{k}", "",
            {name: float(rng.normal() + size * (group == "member")) for name, size in gaps.items()},
        )
        for group in ("member", "non_member")
        for k in range(count)
    ]  # fmt: skip


def pairs(count: int, member_word: str = "", brighter: int = 0) -> Dataset:
    """Pairs of one pool, every second one a member; a word of their captions, or light, may give members away."""
    rng = random.Random(0)
    rows: list[Example] = []
    for k in range(count):
        light = rng.randint(60, 160) + brighter * (k % 2)
        caption = " ".join([*rng.sample(WORDS, 4), *([member_word] if k % 2 and member_word else [])])
        picture = Image.from_pixels(PIL.Image.new("RGB", (12, 12), (light, rng.randint(0, 255), 90)), str(k))
        rows.append(Example(str(k), image=picture, caption=caption, attributes={"member": "yes" if k % 2 else "no"}))
    return Dataset("pool", tuple(rows))


def test_planted_scores_are_found_and_absent_ones_are_not() -> None:
    found, clean = measured(scored(150, 2.0)), measured(scored(150, 0.0))
    for score in ("cosine", "augmented"):
        assert found["auroc", score].low > 0.85
        assert found["tpr_at_1_fpr", score].low > found["tpr_at_1_fpr", score].floor == pytest.approx(2 / 151)
        assert found["balanced_accuracy", score].low > 0.7
        assert clean["auroc", score].low < 0.5 < clean["auroc", score].high
        assert (found["auroc", score].n, found["auroc", score].unscored, found["auroc", score].floor) == (300, 0, 0.5)


@pytest.mark.parametrize("blind", ["blind_words", "blind_pixels"])
def test_where_blind_eyes_tell_members_apart_the_scores_are_void(blind: str) -> None:
    found = measured(scored(150, 2.0, **{blind: 1.0}))
    assert found["auroc", blind].low > 0.5
    assert "void" in found["auroc", blind].says
    for name in ("auroc", "tpr_at_1_fpr", "balanced_accuracy"):
        row = found[name, "cosine"]
        assert math.isnan(row.value)
        assert (row.n, row.unscored) == (0, 300)


def test_fewer_than_a_hundred_non_members_have_no_rate_at_one_percent() -> None:
    found = measured(scored(60, 2.0))
    assert (found["tpr_at_1_fpr", "cosine"].n, found["auroc", "cosine"].n) == (0, 120)


def test_without_a_blind_baseline_there_is_no_score() -> None:
    samples = [replace(s, values={"cosine": s.values["cosine"]}) for s in scored(60, 2.0)]
    assert measured(samples)["auroc", "cosine"].n == 0


@pytest.mark.parametrize(
    ("data", "words", "pixels"),
    [
        (pairs(200), False, False), (pairs(200, member_word="vintage"), True, False),
        (pairs(200, brighter=80), False, True),
    ],
)  # fmt: skip
def test_the_blind_baseline_tells_a_shifted_pool_and_not_a_random_split(
    data: Dataset, words: bool, pixels: bool
) -> None:
    rows = data.examples
    truth = np.array([row.attributes["member"] == "yes" for row in rows])
    pictures = [row.image.decode() for row in rows if row.image is not None]
    found = blind_scores([str(r.caption) for r in rows], pictures, list(truth), [r.id for r in rows], seed=0)
    for name, told in (("blind_words", words), ("blind_pixels", pixels)):
        above = float((found[name][truth][:, None] > found[name][~truth]).mean())
        assert (above > 0.8) if told else abs(above - 0.5) < 0.1, (name, above)


def test_copies_of_a_pair_are_never_scored_by_a_classifier_that_saw_one() -> None:
    """Each pair four times, members dealt to pairs at random: a fold that split the copies would tell them all."""
    data = pairs(60)
    rows = [row for row in data.examples for _ in range(4)]
    truth = np.array([random.Random(row.id).random() < 0.5 for row in rows])
    pictures = [row.image.decode() for row in rows if row.image is not None]
    found = blind_scores([f"{r.caption} {r.id}" for r in rows], pictures, list(truth), [r.id for r in rows], seed=0)
    above = float((found["blind_words"][truth][:, None] > found["blind_words"][~truth]).mean())
    assert above < 0.7


def test_thumbnails_are_means_of_fields_and_sizes() -> None:
    picture = PIL.Image.new("RGB", (16, 8), (10, 20, 30))
    (row,) = thumbnails([picture])
    assert list(row[:3]) == [10, 20, 30]
    assert list(row[-2:]) == pytest.approx([math.log(16), math.log(8)])


def test_the_augmented_score_is_the_cosine_and_its_drops() -> None:
    """s = 0.6 and, for the four changed pictures, 0: s + 4 * (s - 0) = 3.0."""
    data = pairs(4)
    images: dict[str, torch.Tensor] = {}
    for row in data.examples:
        assert row.image is not None
        picture = row.image.decode()
        images[Image.from_pixels(picture).digest] = torch.tensor([0.6, 0.8])
        for changed in variants(picture):
            images.setdefault(Image.from_pixels(changed).digest, torch.tensor([0.0, 1.0]))
    told: Any = ScriptedDual(images, {str(row.caption): torch.tensor([1.0, 0.0]) for row in data.examples})
    samples = SUITE.samples(told, data, None, seed=0)
    # A picture of one colour is its own mirror and crop: turned and darkened it is another. 0.6 + 2 * 0.6
    assert [s.values["cosine"] for s in samples] == pytest.approx([0.6] * 4)
    assert [s.values["augmented"] for s in samples] == pytest.approx([1.8] * 4)


def test_a_broken_picture_is_unscored_by_name_and_no_members_are_refused() -> None:
    data = pairs(6)
    broken = replace(data.examples[0], id="broken", image=Image(b"no image", "broken.png"))
    told = replace(data, examples=(*data.examples, broken))
    samples = SUITE.samples(load_dual(phantom_clip()), told, None, seed=0)
    assert [s.id for s in samples if not s.values] == ["broken"]
    assert "broken.png" in next(s.reason for s in samples if s.id == "broken")
    only = Dataset("one kind", tuple(row for row in data.examples if row.attributes["member"] == "yes"))
    assert SUITE.applies(data)
    assert not SUITE.applies(only)
    with pytest.raises(BadData, match="one kind has 3 members and 0 non-members"):
        SUITE.samples(load_dual(phantom_clip()), only, None, seed=0)
    with pytest.raises(BadData, match="No data are given"):
        SUITE.samples(load_dual(phantom_clip()), None, None, seed=0)


def test_phantom_clips_pool_is_a_random_split_of_which_it_knows_half() -> None:
    assert MEMBERS[0].made is not None
    rows = MEMBERS[0].made().examples
    assert [sum(row.attributes["member"] == value for row in rows) for value in ("yes", "no")] == [400, 400]
    assert all(row.image is not None and row.caption for row in rows)


def test_a_model_taught_pairs_gives_them_away_and_its_twin_that_never_saw_them_does_not() -> None:
    clip, data = load_dual(phantom_clip()), never_shown()
    kinds = [[row for row in data.examples if row.attributes["member"] == value][:50] for value in ("yes", "no")]
    few = Dataset("few", tuple(row for kind in kinds for row in kind))
    clean, planted = (measured(SUITE.samples(model, few, None, seed=0)) for model in (clip, taught(clip, kinds[0], 12)))
    assert clean["auroc", "cosine"].low < 0.5 < clean["auroc", "cosine"].high
    assert planted["auroc", "cosine"].low > max(0.7, clean["auroc", "cosine"].high)
