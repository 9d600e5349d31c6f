"""robustness/anomaly_segmentation on colours as things: an unknown colour is found, a known one in its place is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from torch import Tensor

from vlmend.audit.suites.robustness.anomaly_segmentation import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.pictures.galleries import scenes_with_unknown

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0)}
SIDE = 12


@dataclass(frozen=True, eq=False)
class SeesColours(ScriptedDual):
    """The mean colour is the embedding; blue has no name."""

    def embed_images(self, images: object) -> Tensor:
        pixels = [np.asarray(image.decode(), dtype=np.float32).reshape(-1, 3).mean(0) for image in images]  # type: ignore[attr-defined]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(pixels)), dim=1)


def target() -> ScriptedDual:
    return SeesColours({}, {"a photo of a red": torch.eye(3)[0], "a photo of a green": torch.eye(3)[1]})


def scene(name: str, shown: tuple[int, int, int], group: str) -> Example:
    """Red on the left, green on the right, and something in the upper left ninth of the picture."""
    picture = PIL.Image.new("RGB", (SIDE, SIDE), COLOURS["red"])
    picture.paste(COLOURS["green"], (SIDE // 2, 0, SIDE, SIDE))
    picture.paste(shown, (0, 0, SIDE // 3, SIDE // 3))
    mask = PIL.Image.new("L", (SIDE, SIDE))
    mask.paste(255, (0, 0, SIDE // 3, SIDE // 3))
    return Example(name, "", None, group, Image.from_pixels(picture), answers=("red", "green"),
                   more_images=(Image.from_pixels(mask),))  # fmt: skip


def found(*rows: Example) -> dict[tuple[str, str], Measure]:
    samples = SUITE.samples(target(), Dataset("scenes", rows), None, seed=0)
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_an_unknown_thing_is_found_and_a_known_one_in_its_place_is_not() -> None:
    table = found(scene("a", (0, 0, 255), "unknown"), scene("b", COLOURS["red"], "control"))
    assert table["auroc", "unknown"].value > 0.95
    assert table["aupr", "unknown"].value > 0.9
    assert table["aupr", "unknown"].floor == pytest.approx(1 / 9)
    assert table["auroc", "control"].value < 0.7
    assert "{value}" in table["auroc", "unknown"].says


def test_three_pixels_by_hand() -> None:
    """Red, blue, green, a window each: largest logits 20, 0, 20, so the middle stands out alone."""
    picture, mask = PIL.Image.new("RGB", (3, 1)), PIL.Image.new("L", (3, 1))
    for place, colour in enumerate(((255, 0, 0), (0, 0, 255), (0, 255, 0))):
        picture.putpixel((place, 0), colour)
    mask.putpixel((1, 0), 255)
    row = replace(scene("a", (0, 0, 0), ""), image=Image.from_pixels(picture), more_images=(Image.from_pixels(mask),))
    (sample,) = SUITE.samples(target(), Dataset("one", (row,)), None, seed=0)
    assert sample.group == "unknown"
    assert [sample.values[name] for name in ("auroc", "aupr", "fpr95", "msp_auroc")] == [1, 1, 0, 1]
    assert sample.values["aupr_floor"] == pytest.approx(1 / 3)


def test_the_largest_logit_falls_with_every_logit_and_the_largest_share_does_not() -> None:
    """score(logits + c) = score - c, so that AUROCs stay, as do those of the shares."""
    row = scene("a", (0, 0, 255), "unknown")
    plain, moved = target(), target()
    object.__setattr__(moved, "logits", lambda images, texts: ScriptedDual.logits(moved, images, texts) + 3)
    values = [SUITE.samples(one, Dataset("one", (row,)), None, seed=0)[0].values for one in (plain, moved)]
    assert values[0]["auroc"] == pytest.approx(values[1]["auroc"])
    assert values[0]["msp_auroc"] == pytest.approx(values[1]["msp_auroc"])


def test_what_cannot_be_scored_is_told() -> None:
    good = scene("good", (0, 0, 255), "unknown")
    small = replace(good, id="small", more_images=(Image.from_pixels(PIL.Image.new("L", (2, 2))),))
    empty = replace(good, id="empty", more_images=(Image.from_pixels(PIL.Image.new("L", (SIDE, SIDE))),))
    broken = replace(good, id="broken", image=Image(b"no picture"))
    samples = SUITE.samples(target(), Dataset("odd", (good, small, empty, broken)), None, seed=0)
    reasons = {sample.id: sample.reason for sample in samples}
    assert reasons["good"] == ""
    assert reasons["small"] == "Its mask is 2 x 2, the picture 12 x 12."
    assert reasons["empty"] == "Its mask has no unknown or no known pixel."
    assert reasons["broken"]


def test_pictures_without_masks_or_names_are_refused() -> None:
    bare = replace(scene("a", (0, 0, 255), ""), more_images=())
    assert not SUITE.applies(Dataset("bare", (bare,)))
    with pytest.raises(BadData, match="0 pictures with a mask"):
        SUITE.samples(target(), Dataset("bare", (bare,)), None, seed=0)


def test_built_in_scenes_differ_from_their_controls_in_the_mask_alone() -> None:
    rows = scenes_with_unknown("held_out", 2, 0).examples
    shown, control, mask = (
        np.asarray(image.decode().convert("RGB"), dtype=int)
        for image in (rows[0].image, rows[1].image, rows[0].more_images[0])
        if image is not None
    )
    changed = (shown != control).any(-1)
    assert changed.any()
    assert not changed[mask[..., 0] == 0].any()
    assert (mask == 255).all(-1).mean() == pytest.approx(1 / 9)
