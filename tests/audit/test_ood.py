"""robustness/ood on planted worlds: unknown things are told where they are apart, and nothing where they are not."""

from __future__ import annotations

import math
from dataclasses import replace

import PIL.Image
import pytest
import torch
from tests.audit.scripted_dual import named_world

from vlmend.audit.suites.robustness.ood import SUITE as OOD
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.testing import tiny_clip


def ood(apart: float, seed: int = 0) -> dict[tuple[str, str], Measure]:
    target, data = named_world(apart, seed)
    return {(row.name, row.group): row for row in OOD.measures(OOD.samples(target, data, None, seed=0), seed=0)}


def test_unknown_things_are_told_the_better_the_less_they_are_like_names() -> None:
    near, far = ood(2.0), ood(20.0)
    for score in ("mcm", "max_logit"):
        assert near["auroc", score].low > 0.5
        assert near["auroc", score].value < far["auroc", score].value
        assert far["fpr95", score].value < near["fpr95", score].value < 0.95
    assert near["accepted", "known"].value == near["accepted", "other"].value == 1  # no mend, no threshold


def test_where_unknown_things_are_like_known_ones_nothing_is_told() -> None:
    found = ood(1.0)
    for score in ("mcm", "max_logit"):
        assert found["auroc", score].low < 0.5 < found["auroc", score].high
        assert (found["auroc", score].floor, found["fpr95", score].floor) == (0.5, 0.95)


def test_accuracy_and_calibration_are_those_of_known_pictures() -> None:
    found = ood(2.0)
    assert {found[name, "known"].n for name in ("accuracy", "nll", "overconfidence")} == {40}
    target, data = named_world(2.0, 0)
    samples = [s for s in OOD.samples(target, data, None, seed=0) if s.group == "known"]
    right = sum(s.values["accuracy"] for s in samples) / 40
    assert found["accuracy", "known"].value == right
    sure = sum(s.values["overconfidence"] + s.values["accuracy"] for s in samples) / 40
    assert found["overconfidence", "known"].value == pytest.approx(sure - right)


def test_a_broken_picture_is_counted_and_named() -> None:
    target, data = named_world(2.0, 0)
    broken = Example("broken", "", "benign", "", Image(b"no image", "broken.png"))
    samples = OOD.samples(target, replace(data, examples=(*data.examples, broken)), None, seed=0)
    assert {s.id for s in samples if not s.values} == {"broken"}
    rows = {(row.name, row.group): row for row in OOD.measures(samples, seed=0)}
    assert (rows["auroc", "mcm"].n, rows["auroc", "mcm"].unscored) == (80, 1)
    assert (rows["accepted", "other"].n, rows["accepted", "other"].unscored) == (40, 1)


def test_pictures_of_one_kind_only_are_refused() -> None:
    target, data = named_world(2.0, 0)
    known = Dataset("known", tuple(e for e in data.examples if e.answers))
    assert OOD.applies(data)
    assert not OOD.applies(known)
    with pytest.raises(BadData, match="40 pictures of known things and 0 of others"):
        OOD.samples(target, known, None, seed=0)
    assert not OOD.applies(
        Dataset("words", (Example("a", "a", "benign"), Example("b", "b", "benign", "", noise_image(4, 0))))
    )


def test_one_picture_of_a_kind_tells_nothing_apart_and_ends_nothing() -> None:
    """40 known pictures and one other: no AUROC, and the 41 are unscored for it; what is accepted is still told."""
    target, data = named_world(2.0, 0)
    rows = [*(e for e in data.examples if e.answers), next(e for e in data.examples if not e.answers)]
    samples = OOD.samples(target, replace(data, examples=tuple(rows)), None, seed=0)
    found = {(row.name, row.group): row for row in OOD.measures(samples, seed=0)}
    assert (found["auroc", "mcm"].n, found["auroc", "mcm"].unscored) == (0, 41)
    assert math.isnan(found["auroc", "mcm"].value)
    assert (found["accepted", "known"].value, found["accepted", "known"].n) == (1.0, 40)


def test_a_wording_that_tells_nothing_shows_as_spread_and_alike_wordings_as_none() -> None:
    """With the last wording every name is the same text: its AUROC is about a half."""
    target, data = named_world(20.0, 0)
    same = {text: torch.ones(40) for text in target.texts if not text.startswith("a")}
    for texts, least, most in (({}, 0.0, 0.0), (same, 0.2, 1.0)):
        one = replace(target, texts={**target.texts, **texts})
        found = {(row.name, row.group): row for row in OOD.measures(OOD.samples(one, data, None, seed=0), seed=0)}
        for score in ("mcm", "max_logit"):
            group = f"{score}, 5 wordings"
            assert least <= found["auroc_spread", group].value <= most
            mean, own = found["auroc", group].value, found["auroc", score].value
            assert (mean < own - 0.03) if texts else (mean == pytest.approx(own))


def test_a_picture_that_the_model_refuses_is_unscored_and_says_why() -> None:
    """It can be decoded, and is too thin for the model's processor."""
    thin = Image.from_pixels(PIL.Image.new("RGB", (300_000, 1)), "thin")
    rows = [Example(str(k), image=noise_image(16, k), answers=(f"thing {k}",) if k < 3 else ()) for k in range(6)]
    samples = OOD.samples(tiny_clip(), Dataset("d", (*rows, Example("thin", image=thin))), None, seed=0)
    assert [sample.id for sample in samples if sample.reason] == ["thin"]
    table = {(row.name, row.group): row for row in OOD.measures(samples, seed=0)}
    assert (table["auroc", "mcm"].n, table["auroc", "mcm"].unscored) == (6, 1)
