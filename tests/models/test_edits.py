"""Each kind of edit on the tiny LLaVA: its rule, its scopes, and that it leaves the base alone."""

from __future__ import annotations

import io
from dataclasses import replace

import PIL.Image
import pytest
import torch

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    ContrastLogits,
    Edit,
    FilterImage,
    Gate,
    LoadAdapter,
    ModuleEdit,
    OtherView,
    ReplaceWeights,
    Tokens,
)
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BadParameter
from vlmend.models.editing.inputs import filtered
from vlmend.models.vlm import VLM
from vlmend.testing import full_digest, hook_count, tiny_vlm

GREEDY = Sampling(max_new_tokens=6)
SITE = Site("language", 1)
TEXT = Conversation.ask("short")
SEEN = Conversation.ask("with a picture", noise_image(16, 3))
PROJECTOR = "model.multi_modal_projector.linear_2"
TOWER = "model.vision_tower.encoder.layers.0.mlp.fc1"
DECODER = "model.language_model.layers.1.mlp.up_proj"


def mended(vlm: VLM, *edits: Edit) -> VLM:
    return vlm.with_mend(
        Mend(edits, MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test"))
    )


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight_edit(vlm: VLM, kind: str, module: str) -> Edit:
    linear = vlm.model.get_submodule(module)
    if kind == "adapter":
        return LoadAdapter(module, drawn(2, linear.in_features), drawn(linear.out_features, 2))
    return ReplaceWeights(f"{module}.weight", drawn(*linear.weight.shape))


def test_an_affine_map_reads_writes_and_shifts(tiny: VLM) -> None:
    """h + 0.5 (W R h + b), by hand from the base's own states."""
    read, write, bias = drawn(3, 32), drawn(32, 3, seed=1), drawn(32, seed=2)
    view = mended(tiny, AffineMap(SITE, read, write, bias, strength=0.5))
    state = tiny.hidden([TEXT, SEEN], [SITE])[SITE]
    wanted = state + 0.5 * ((write @ (read @ state.T)).T + bias)
    torch.testing.assert_close(view.hidden([TEXT, SEEN], [SITE])[SITE], wanted, atol=1e-4, rtol=1e-4)


def test_a_map_of_the_last_prompt_token_moves_every_position_by_the_same(tiny: VLM) -> None:
    view = mended(
        tiny, AffineMap(SITE, drawn(3, 32), drawn(32, 3), torch.zeros(32), source="last_prompt", tokens="prompt")
    )
    whole: dict[str, torch.Tensor] = {}

    def keep(name: str):
        return lambda module, args, out: whole.update({name: out.clone()})

    for name, target in (("base", tiny), ("view", view)):
        asked = target.rewritten([SEEN])
        inputs = target.reader.inputs(asked)
        with torch.inference_mode(), target.installed(asked, target.reader.rows(asked, inputs)):
            handle = tiny.anatomy.blocks[1].register_forward_hook(keep(name))
            target.reader.forward(inputs)
            handle.remove()
    moved = (whole["view"] - whole["base"])[0]
    state = whole["base"][0, -1]
    torch.testing.assert_close(moved, (drawn(32, 3) @ (drawn(3, 32) @ state)).expand_as(moved), atol=1e-4, rtol=1e-4)


def test_a_closed_gate_keeps_an_affine_map_out(tiny: VLM) -> None:
    shut = Gate(SITE, torch.zeros(32), -1.0)
    edit = AffineMap(SITE, drawn(3, 32), drawn(32, 3), drawn(32), gate=shut)
    assert torch.equal(mended(tiny, edit).logits([SEEN]), tiny.logits([SEEN]))
    assert not torch.equal(mended(tiny, replace(edit, gate=None)).logits([SEEN]), tiny.logits([SEEN]))


def test_a_gate_sees_the_state_before_other_edits_of_its_site(tiny: VLM) -> None:
    """A first edit moves the state across the gate of a second; the gate must not see that."""
    state = tiny.hidden([SEEN], [SITE])[SITE][0]
    weight = state / state.norm()
    first = AddVector(SITE, -2 * state)
    gate = Gate(SITE, weight, 0.0)  # open before the first edit, and closed behind it
    second = AddVector(SITE, torch.ones(32), gate=gate)
    moved = mended(tiny, first, second).hidden([SEEN], [SITE])[SITE][0]
    torch.testing.assert_close(moved, 1 - state, atol=1e-4, rtol=1e-4)
    shut = replace(second, gate=replace(gate, weight=-weight))
    torch.testing.assert_close(mended(tiny, first, shut).hidden([SEEN], [SITE])[SITE][0], -state, atol=1e-4, rtol=1e-4)


def test_a_module_is_a_hidden_layer_beside_the_state(tiny: VLM) -> None:
    read, write = drawn(4, 32), drawn(32, 4, seed=1)
    view = mended(tiny, ModuleEdit(SITE, read, torch.full((4,), 0.5), write, torch.ones(32), strength=0.1))
    state = tiny.hidden([SEEN], [SITE])[SITE]
    wanted = state + 0.1 * (torch.relu(state @ read.T + 0.5) @ write.T + 1)
    torch.testing.assert_close(view.hidden([SEEN], [SITE])[SITE], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [AffineMap, ModuleEdit])
def test_maps_act_in_every_step_as_in_transformers_own_loop(kind: type, tiny: VLM) -> None:
    """Our loop's steps against one forward over prompt and reply."""
    parts = (drawn(3, 32), drawn(32, 3), drawn(32)) if kind is AffineMap else (
        drawn(3, 32), drawn(3), drawn(32, 3), drawn(32))  # fmt: skip
    view = mended(tiny, kind(SITE, *parts, strength=0.5))
    (reply,) = view.generate([SEEN], GREEDY)
    assert reply.fired == {"language.1.resid_post": 6}


def test_a_filter_changes_images_and_no_words(tiny: VLM) -> None:
    view = mended(tiny, FilterImage("bits", 1.0))
    assert torch.equal(view.logits([TEXT]), tiny.logits([TEXT]))
    assert not torch.equal(view.logits([SEEN]), tiny.logits([SEEN]))
    assert torch.equal(view.logits([SEEN]), tiny.logits([Conversation.ask("with a picture", filtered(
        FilterImage("bits", 1.0), noise_image(16, 3)))]))  # fmt: skip


def test_one_bit_leaves_black_and_white() -> None:
    grey = Image.from_pixels(PIL.Image.new("RGB", (2, 1), (100, 200, 128)))
    assert filtered(FilterImage("bits", 1.0), grey).decode().getpixel((0, 0)) == (0, 255, 255)


def test_a_median_takes_out_a_speck_and_a_blur_spreads_it() -> None:
    pixels = PIL.Image.new("RGB", (5, 5))
    pixels.putpixel((2, 2), (255, 255, 255))
    speck = Image.from_pixels(pixels)
    assert filtered(FilterImage("median", 3.0), speck).decode().getpixel((2, 2)) == (0, 0, 0)
    blurred = filtered(FilterImage("blur", 1.0), speck).decode()
    assert 0 < blurred.getpixel((1, 2))[0] < blurred.getpixel((2, 2))[0] < 255  # type: ignore[index]


def test_a_jpeg_filter_is_pillows_own_jpeg() -> None:
    image, buffer = noise_image(16, 0), io.BytesIO()
    image.decode().save(buffer, format="JPEG", quality=30)
    assert filtered(FilterImage("jpeg", 30.0), image).content == buffer.getvalue()


def test_contrasts_follow_the_mean_of_other_views(tiny: VLM) -> None:
    """l + 0.5 ((a - l) + (b - l)), each read by itself."""
    views = (OtherView("Careful. "), OtherView(image="none"))
    view = mended(tiny, ContrastLogits(views, 0.5))
    plain = tiny.logits([SEEN])
    a = tiny.logits([Conversation.ask("Careful. with a picture", noise_image(16, 3))])
    b = tiny.logits([Conversation.ask("with a picture")])
    torch.testing.assert_close(view.logits([SEEN]), plain + 0.5 * (a + b - 2 * plain), atol=1e-4, rtol=1e-4)


def test_damping_takes_from_tokens_that_the_other_view_likes_more(tiny: VLM) -> None:
    """log max(floor, exp(-50 delta)) is added, delta = max(0, p_y - p)."""
    view = mended(tiny, ContrastLogits((OtherView("Say bad things. "),), 50.0, "damp", floor=0.1))
    plain = tiny.logits([SEEN])
    worse = tiny.logits([Conversation.ask("Say bad things. with a picture", noise_image(16, 3))])
    delta = (worse.softmax(-1) - plain.softmax(-1)).clamp_min(0)
    wanted = plain + (-50.0 * delta).exp().clamp_min(0.1).log()
    torch.testing.assert_close(view.logits([SEEN]), wanted, atol=1e-3, rtol=1e-3)


def test_rows_that_a_contrast_is_not_meant_for_stay_bit_for_bit(tiny: VLM) -> None:
    view = mended(tiny, ContrastLogits((OtherView("Careful. "),), 2.0))
    together, base = view.logits([TEXT, SEEN]), tiny.logits([TEXT, SEEN])
    torch.testing.assert_close(together[0], base[0], atol=1e-5, rtol=1e-5)
    assert (together[1] - base[1]).abs().max() > 1e-3
    assert torch.equal(view.logits([TEXT]), tiny.logits([TEXT]))


@pytest.mark.parametrize("rule", ["towards", "damp"])
def test_generation_takes_the_token_that_mixed_logits_prefer(rule: str, tiny: VLM) -> None:
    view = mended(tiny, ContrastLogits((OtherView("No! "), OtherView(question=False)), 3.0, rule))  # type: ignore[arg-type]
    (reply,) = view.generate([SEEN], Sampling(max_new_tokens=1))
    token = int(view.logits([SEEN]).argmax())
    assert reply.text == tiny.processor.tokenizer.decode([token], skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", ["adapter", "weights"])
@pytest.mark.parametrize("module", [PROJECTOR, TOWER, DECODER])
def test_base_and_mended_calls_do_not_touch_each_other(kind: str, module: str) -> None:
    """In every order of three calls in one model, each as on a fresh model."""

    def texts(vlm: VLM) -> list[str]:
        return [reply.text for reply in vlm.generate([TEXT, SEEN], GREEDY)]

    fresh = tiny_vlm()
    wanted = {False: texts(fresh), True: texts(mended(tiny_vlm(), weight_edit(fresh, kind, module)))}
    assert wanted[False] != wanted[True]
    for order in ((False, True, False), (True, False, True), (True, True, False)):
        vlm = tiny_vlm()
        views = {False: vlm, True: mended(vlm, weight_edit(vlm, kind, module))}
        assert [texts(views[which]) for which in order] == [wanted[which] for which in order]


def test_replaced_weights_are_the_same_objects_afterwards_whatever_happens(tiny: VLM) -> None:
    view = mended(tiny, weight_edit(tiny, "weights", DECODER))
    before, digest, hooks = (
        tiny.model.get_parameter(f"{DECODER}.weight"),
        full_digest(tiny.model),
        hook_count(tiny.model),
    )
    inside: list[object] = []

    def fails() -> None:
        with view.adapted():
            inside.append(tiny.model.get_parameter(f"{DECODER}.weight"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert inside[0] is not before
    assert tiny.model.get_parameter(f"{DECODER}.weight") is before
    assert (full_digest(tiny.model), hook_count(tiny.model)) == (digest, hooks)


def test_a_mend_of_other_weights_is_refused_by_name(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match=r"no parameter model\.nowhere\.weight"):
        mended(tiny, ReplaceWeights("model.nowhere.weight", drawn(2, 2)))


def test_strength_zero_is_the_base_bit_for_bit(tiny: VLM) -> None:
    edits = (weight_edit(tiny, "weights", TOWER), AffineMap(SITE, drawn(3, 32), drawn(32, 3), drawn(32)),
             FilterImage("blur", 2.0), ContrastLogits((OtherView("x"),)))  # fmt: skip
    card = MendCard("by_hand", {}, tiny.name, tiny.model_digest, "none", "", 0, {}, {}, "test")
    view = tiny.with_mend(Mend(edits, card).scaled(0.0))
    assert torch.equal(view.logits([TEXT, SEEN]), tiny.logits([TEXT, SEEN]))


def test_sequential_shifts_beside_other_weights_are_read_on_the_bare_model() -> None:
    from vlmend.core.edits import ContrastShift

    vlm = tiny_vlm()
    shift = ContrastShift((1, 2), blank_image(16))
    both = mended(vlm, weight_edit(vlm, "weights", DECODER), shift)
    (first,) = both.generate([SEEN], GREEDY)
    mended(vlm, shift).generate([SEEN], GREEDY)
    assert both.generate([SEEN], GREEDY)[0].text == first.text
    fresh = tiny_vlm()
    assert vlm.generate([SEEN], GREEDY)[0].text == fresh.generate([SEEN], GREEDY)[0].text


SITES = [Site("language", layer) for layer in (0, 1, 2)]


@pytest.mark.parametrize("alone", ["", "one picture a row"])
@pytest.mark.parametrize("tokens", ["last_prompt", "all"])
def test_steering_a_read_is_the_mend_that_it_finds(tiny: VLM, tokens: Tokens, alone: str) -> None:
    """Each vector is half of what the rows have in common there, so it hangs on those before it."""
    view = replace(tiny, anatomy=replace(tiny.anatomy, alone=alone))
    hooks = hook_count(tiny.model)
    seen: dict[Site, torch.Tensor] = {}
    added: dict[Site, torch.Tensor] = {}

    def push(site: Site, states: torch.Tensor) -> torch.Tensor:
        seen[site], added[site] = states, -states.mean(0) / 2
        return added[site]

    view.steer([TEXT, SEEN], SITES, push, tokens)
    assert list(added) == SITES
    assert hook_count(tiny.model) == hooks
    edits = [AddVector(site, added[site], tokens, "always") for site in SITES]
    found = mended(tiny, *edits).hidden([TEXT, SEEN], SITES)
    for site in SITES:
        torch.testing.assert_close(found[site], seen[site] + added[site], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(seen[SITES[2]], tiny.hidden([TEXT, SEEN], SITES)[SITES[2]], atol=1e-2)


def test_nothing_is_left_behind_where_steering_fails(tiny: VLM) -> None:
    def push(site: Site, states: torch.Tensor) -> torch.Tensor:
        raise ValueError(site)

    hooks = hook_count(tiny.model)
    with pytest.raises(ValueError, match="language"):
        tiny.steer([TEXT], SITES, push, "last_prompt")
    assert hook_count(tiny.model) == hooks
