"""Maps and their checks, on models of which it is known what they read."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.linear_dual import NOTHING, SIDE, halved, linear_dual, speckled

from vlmend.audit.explaining.checks import HIDDEN, faithful, place_values, sanity_values, shuffled
from vlmend.audit.explaining.maps import METHODS, as_map_method, heat_of
from vlmend.audit.explaining.shown import Shown, region_of, shown
from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadImage, MissingExtra, ModelProblem, UsageError
from vlmend.testing.fakes import tiny_clip, tiny_vlm


def linear(weights: torch.Tensor, picture: torch.Tensor) -> Shown:
    """f(x) = w x, of a picture 1 x 3 x 2 x 2."""
    everywhere = np.ones((2, 2), bool)
    blank = picture.mean((2, 3), keepdim=True).expand_as(picture)
    return Shown("a", "", lambda seen: (seen * weights).sum((1, 2, 3)), picture, blank, None, everywhere)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_integrated_gradients_of_a_linear_model_are_weights_times_what_changed(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    weights, picture = (torch.rand(1, 3, 2, 2, generator=draws) for _ in range(2))
    seen = linear(weights - 0.5, picture)
    heat = heat_of(linear_dual(), seen, "integrated_gradients")
    by_hand = ((weights - 0.5) * (picture - seen.baseline)).sum(1)[0]
    np.testing.assert_allclose(heat.map, by_hand.numpy(), atol=1e-5)
    assert heat.map.sum() == pytest.approx(heat.score - heat.blank, abs=1e-5)


def test_occlusion_of_a_linear_model_by_hand() -> None:
    """Squares of one pixel: each loses w (x - b), shared by its three channels."""
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    picture = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    heat = heat_of(linear_dual(), linear(weights, picture), "occlusion")
    np.testing.assert_allclose(heat.map, 3 * np.array([[0.75, -0.5], [-0.75, -1.0]]) / 1, atol=1e-5)


@pytest.mark.parametrize(("half", "share"), [("left", 1.0), ("right", 0.0)])
def test_a_map_lies_where_the_model_reads(half: str, share: float) -> None:
    target, row = linear_dual(half), speckled("a")
    seen = shown(target, row)
    placed = place_values(seen, heat_of(target, seen, "integrated_gradients"))
    assert placed["share"] == pytest.approx(share, abs=1e-6)
    assert placed["area"] == 0.5
    assert placed["centre"] == pytest.approx(0.5)
    assert placed["pointed"] == share


@pytest.mark.parametrize("half", ["left", "right"])
def test_occlusion_lies_there_up_to_its_grain(half: str) -> None:
    """Squares of three pixels go over the middle by one or two; hiding the dark half changes nothing."""
    target, row = linear_dual(half), halved("a", *((250, 50) if half == "left" else (50, 250)))
    seen = shown(target, row)
    share = place_values(seen, heat_of(target, seen, "occlusion"))["share"]
    assert share > 0.85 if half == "left" else share < 0.15


def test_what_is_taken_off_is_taken_off() -> None:
    """(m, 1) of length 1, times (1, 0) and (0, 1): m / sqrt(m^2 + 1) less 1 / sqrt(m^2 + 1)."""
    target, row = linear_dual(), halved("a", against=NOTHING)
    seen, m = shown(target, row), 250 / 255
    assert float(seen.score(seen.picture)[0]) == pytest.approx((m - 1) / math.sqrt(m**2 + 1), abs=1e-5)
    heat = heat_of(target, seen, "integrated_gradients")
    assert heat.map[:, : SIDE // 2].min() > 0
    assert abs(heat.map[:, SIDE // 2 :]).max() < 1e-9


def test_shuffled_weights_read_everywhere_and_the_model_stays_as_it_is() -> None:
    target, row = linear_dual(), speckled("a")
    before = target.embed_images([row.image] if row.image else [])
    blind = shuffled(target, 0)
    seen = shown(target, row)
    heat, other = (heat_of(one, shown(one, row), "integrated_gradients") for one in (target, blind))
    sane = sanity_values(seen, heat, other)
    assert sane["share_shuffled"] == pytest.approx(0.5, abs=0.1)
    assert abs(sane["correlation"]) < 0.8  # both maps are weights times the same picture
    assert sanity_values(seen, heat, heat)["correlation"] == pytest.approx(1)
    assert torch.equal(before, target.embed_images([row.image] if row.image else []))
    assert shuffled(target, 0).id == blind.id != shuffled(target, 1).id


def test_hiding_what_is_read_costs_the_score_and_hiding_the_rest_does_not() -> None:
    """The map ranks the 32 cells of the left half first: after half of the cells the score is that of the blank."""
    target, row = linear_dual(), halved("a")
    seen = shown(target, row)
    curves = faithful(seen, heat_of(target, seen, "integrated_gradients"), 0)
    half = HIDDEN.index(0.5)
    assert curves.deleted[half] == pytest.approx(curves.deleted[-1])
    assert curves.inserted[half] == pytest.approx(curves.deleted[0])
    assert curves.deleted[0] > curves.at_random[half] > curves.deleted[-1]
    assert min(curves.values.values()) > 0


def test_a_random_map_gains_nothing() -> None:
    target, row = linear_dual(), halved("a")
    seen, draws = shown(target, row), np.random.default_rng(0)
    heat = heat_of(target, seen, "integrated_gradients")
    gains = [
        faithful(seen, replace(heat, map=draws.normal(size=heat.map.shape)), k).values["deletion_gain"]
        for k in range(30)
    ]
    own = faithful(seen, heat, 0).values["deletion_gain"]
    assert abs(float(np.mean(gains))) < 0.1 * own


@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_on_a_dual_encoder_and_on_a_model_that_answers(method: str) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:20] = (250, 30, 90)
    row = Example("a", "what is it", image=Image.from_pixels(PIL.Image.fromarray(picture)), answers=("a cat",))
    for target in (tiny_clip(), tiny_vlm()):
        seen = shown(target, row)
        heat = heat_of(target, seen, as_map_method(method))
        assert heat.map.shape == seen.picture.shape[2:]
        assert np.isfinite(heat.map).all()
        assert method == "grad_cam" or abs(heat.map).max() > 0
        assert math.isnan(heat.error) == (method != "integrated_gradients")


def test_the_score_of_a_reply_is_its_mean_log_likelihood() -> None:
    target = tiny_vlm()
    row = Example("a", "what is it", image=Image.from_pixels(PIL.Image.new("RGB", (20, 20), "red")), answers=("a cat",))
    seen = shown(target, row)
    (each,) = target.logprobs([row.conversation], ["a cat"])
    assert float(seen.score(seen.picture)[0].detach()) == pytest.approx(float(each.mean()), abs=1e-4)
    assert shown(target, replace(row, answers=())).text != ""


def test_a_box_follows_what_the_processor_cuts_away() -> None:
    """Of a picture twice as wide as high the middle is seen: a box of the left quarter is not, one of the middle is."""
    wide = Image.from_pixels(PIL.Image.new("RGB", (80, 40), "red"))
    target = tiny_clip()
    for box, area in (("0 0 20 40", 0.0), ("20 0 40 40", 0.5), ("0 0 80 40", 1.0)):
        seen = shown(target, Example("a", image=wide, caption="a", attributes={"box": box}))
        assert seen.region is not None
        assert seen.region.mean() == pytest.approx(area, abs=0.07)


def test_masks_and_boxes_of_rows() -> None:
    picture = Image.from_pixels(PIL.Image.new("RGB", (4, 2), "red"))
    mask = PIL.Image.new("L", (4, 2))
    mask.putpixel((3, 1), 255)
    row = Example("a", image=picture, more_images=(Image.from_pixels(mask),))
    found = region_of(row)
    assert found is not None
    assert np.argwhere(found).tolist() == [[1, 3]]
    assert region_of(replace(row, more_images=(picture,))) is None
    assert region_of(replace(row, more_images=())) is None
    for box in ("1 2 3", "a b c d", "9 9 10 10", "2 0 1 2"):
        with pytest.raises(BadImage, match="box"):
            region_of(replace(row, attributes={"box": box}))


def test_what_cannot_be_explained_is_told() -> None:
    with pytest.raises(BadData, match="no picture"):
        shown(tiny_clip(), Example("a", caption="a"))
    with pytest.raises(BadData, match="--text"):
        shown(tiny_clip(), replace(halved("a"), caption=None))
    with pytest.raises(UsageError, match="integrated_gradients, grad_cam, occlusion"):
        as_map_method("shap")
    target, seen = linear_dual(), shown(linear_dual(), halved("a"))
    with pytest.raises(ModelProblem, match="no block of its vision tower"):
        heat_of(target, seen, "grad_cam")


def test_gradients_that_do_not_pass_name_the_way_out() -> None:
    def stopped(seen: torch.Tensor) -> torch.Tensor:
        return seen.detach().sum((1, 2, 3))

    seen = replace(linear(torch.ones(1, 3, 2, 2), torch.rand(1, 3, 2, 2)), score=stopped)
    with pytest.raises(ModelProblem, match="no map can be made") as problem:
        heat_of(linear_dual(), seen, "integrated_gradients")
    assert "--method occlusion" in problem.value.hint
    assert heat_of(linear_dual(), seen, "occlusion").map.shape == (2, 2)


def test_without_captum_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtra, match="captum") as problem:
        heat_of(linear_dual(), linear(torch.ones(1, 3, 2, 2), torch.rand(1, 3, 2, 2)), "occlusion")
    assert "vlmend[explain]" in problem.value.hint
