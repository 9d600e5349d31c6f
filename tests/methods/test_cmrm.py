"""CMRM against numbers worked out by hand and against planted shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import capped, layers_of, steps_of
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety.cmrm import CMRM, measure_direction, measure_shift
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request number {k}", "harmful") for k in range(200)))


class TwoBlocks(ScriptedTarget):
    """Two blocks, two dimensions: text states are (1, 2) and (3, 5); an image adds (1, 0) and (1, 4)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        text = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        moved = torch.tensor([[1.0, 0.0], [1.0, 4.0]])
        return {
            site: torch.stack([text[site.layer] + c.has_image * moved[site.layer] for c in batch]) for site in sites
        }


TWO = TwoBlocks(lambda c, mended: "", layers=2, width=2)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("full", {0: (-0.5, 0.0), 1: (-0.5, -2.0)}),
        ("increment", {0: (-0.5, 0.0), 1: (0.0, -2.0)}),
        ("last_only", {1: (-0.5, -2.0)}),
    ],
)
def test_edits_worked_out_by_hand_at_alpha_one_half(mode: str, wanted: dict[int, tuple[float, float]]) -> None:
    mend = CMRM(alpha=0.5, mode=mode).fit(TWO, DATA, seed=0)  # type: ignore[arg-type]
    assert {edit.site.layer: tuple(edit.vector.tolist()) for edit in mend.edits} == wanted


def test_dose_worked_out_by_hand() -> None:
    """State with image at block 1 is (4, 9); full removes (1, 4): sqrt(17) / sqrt(97)."""
    mend = CMRM(mode="full").fit(TWO, DATA, seed=0)
    assert mend.card.dose["language.1.resid_post"] == pytest.approx((17 / 97) ** 0.5)


class PlantedShift(ScriptedTarget):
    """Random text states; an image adds the same vector, plus noise."""

    planted = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(1)), dim=0) * 3

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = []
        for conversation in batch:
            seed = int(conversation.digest[:8], 16)
            generator = torch.Generator().manual_seed(seed)
            text = torch.randn(64, generator=torch.Generator().manual_seed(len(conversation.turns[0].text)))
            noise = 0.3 * torch.randn(64, generator=generator)
            rows.append(text + conversation.has_image * (self.planted + noise))
        return {site: torch.stack(rows) for site in sites}


def test_a_planted_shift_is_recovered_with_its_sign() -> None:
    target = PlantedShift(lambda c, mended: "", layers=1, width=64)
    shift = measure_shift(target, DATA.examples, blank_image(16))
    assert cosine_similarity(shift.mean[0], target.planted, dim=0) >= 0.99
    edit = CMRM(mode="increment").edits_for(shift, (0,))[0]
    assert cosine_similarity(edit.vector, target.planted, dim=0) <= -0.99


def test_the_first_direction_is_recovered_uncentred_with_the_sign_of_the_mean() -> None:
    """Centred principal components lose the very shift; ours must not, and a singular vector has no sign of its own."""
    target = PlantedShift(lambda c, mended: "", layers=1, width=64)
    shift = measure_direction(target, DATA.examples, blank_image(16))
    assert cosine_similarity(shift.mean[0], target.planted, dim=0) >= 0.99
    assert shift.mean[0].norm() == pytest.approx(3.0, rel=0.02)
    delta = torch.stack([
        target.hidden([Conversation.ask(e.prompt, blank_image(16))], [Site("language", 0)])[Site("language", 0)][0]
        - target.hidden([Conversation.ask(e.prompt)], [Site("language", 0)])[Site("language", 0)][0]
        for e in DATA.examples
    ])  # fmt: skip
    centred = torch.linalg.svd(delta - delta.mean(0), full_matrices=False).Vh[0]
    assert cosine_similarity(centred, target.planted, dim=0).abs() < 0.5


class Carrying(ScriptedTarget):
    """Two blocks, one dimension: an image adds 4 at block 0; block 1 passes on what comes and adds 1 more."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        edits = {edit.site.layer: edit.vector for mend in self.mends for edit in mend.edits}  # type: ignore[union-attr]
        rows: dict[Site, list[Tensor]] = {site: [] for site in sites}
        for c in batch:
            state = torch.tensor([10.0])
            for layer in range(2):
                state = state + (c.has_image * (4.0 if layer == 0 else 1.0))
                state = state + (edits.get(layer, torch.zeros(1)) if c.has_image else 0.0)
                for site in sites:
                    if site.layer == layer:
                        rows[site].append(state)
        return {site: torch.stack(found) for site, found in rows.items()}


@pytest.mark.parametrize(
    ("mode", "alpha", "wanted"),
    [
        ("full", 1.0, [-4.0, -5.0]),
        ("increment", 1.0, [-4.0, -1.0]),
        ("sequential", 1.0, [-4.0, -1.0]),
        ("increment", 0.5, [-2.0, -0.5]),
        ("sequential", 0.5, [-2.0, -1.5]),
    ],
)
def test_modes_on_a_stream_that_carries_the_shift_on(mode: str, alpha: float, wanted: list[float]) -> None:
    """v is (4, 5). At alpha 1/2 block 0 leaves 2 behind, so that block 1 still sees 3: sequential takes half of it."""
    target = Carrying(lambda c, mended: "", layers=2, width=1)
    mend = CMRM(alpha=alpha, mode=mode).fit(target, DATA, seed=0)  # type: ignore[arg-type]
    assert [edit.vector.item() for edit in mend.edits] == wanted


class Amplifying(ScriptedTarget):
    """Three blocks, one dimension: block 1 doubles what comes, block 2 trebles it; an image adds 4, then 1, then 2."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        edits = {edit.site.layer: edit.vector for mend in self.mends for edit in mend.edits}  # type: ignore[union-attr]
        rows: dict[Site, list[Tensor]] = {site: [] for site in sites}
        for c in batch:
            state = torch.tensor([10.0])
            for layer, (gain, added) in enumerate(zip((1.0, 2.0, 3.0), (4.0, 1.0, 2.0), strict=True)):
                state = gain * state + c.has_image * (added + edits.get(layer, torch.zeros(1)))
                for site in (site for site in sites if site.layer == layer):
                    rows[site].append(state)
        return {site: torch.stack(found) for site, found in rows.items()}


AMPLIFYING = Amplifying(lambda c, mended: "", layers=3, width=1)


def moves(target: ScriptedTarget | VLM, method: CMRM, anchors: Sequence[Example]) -> Tensor:
    """Mean move of the states of every layer beside the white image, "layer width"."""
    mend = method.fit(target, Dataset("anchors", tuple(anchors)), seed=0)
    asked = [Conversation.ask(anchor.prompt, blank_image(target.image_side)) for anchor in anchors]
    sites = [Site("language", layer) for layer in range(target.layers)]
    plain, mended = (view.hidden(asked, sites) for view in (target, target.with_mend(mend)))
    return torch.stack([(mended[site] - plain[site]).mean(0) for site in sites])


def test_unit_gain_on_a_stack_whose_amplification_is_known() -> None:
    """v is (4, 9, 29). At alpha 1/2 the states must move by -2, -4.5, -14.5: of these -4 and -13.5 come by themselves.

    Increments are -2, -2.5, -10 and move the states by -2, -6.5, -29.5: twice the wanted amount at the last layer.
    """
    mend = CMRM(alpha=0.5, mode="unit_gain").fit(AMPLIFYING, DATA, seed=0)
    assert [edit.vector.item() for edit in mend.edits] == [-2.0, -0.5, -1.0]
    assert moves(AMPLIFYING, CMRM(alpha=0.5, mode="unit_gain"), DATA.examples)[:, 0].tolist() == [-2.0, -4.5, -14.5]
    assert moves(AMPLIFYING, CMRM(alpha=0.5, mode="increment"), DATA.examples)[:, 0].tolist() == [-2.0, -6.5, -29.5]


@pytest.mark.parametrize("layers", ["all", "1,3"])
def test_under_unit_gain_the_states_of_a_model_move_by_alpha_times_the_shift(tiny: VLM, layers: str) -> None:
    anchors = DATA.examples[:12]
    shift = measure_shift(tiny, anchors, blank_image(16)).mean
    picked = list(layers_of(layers, tiny.layers))

    def misses(mode: str, alpha: float) -> Tensor:
        moved = moves(tiny, CMRM(alpha=alpha, mode=mode, layers=layers), anchors)  # type: ignore[arg-type]
        return ((moved + alpha * shift).norm(dim=-1) / (alpha * shift).norm(dim=-1))[picked]

    for alpha in (0.3, 1.0):
        assert misses("unit_gain", alpha).max() <= 0.01
        assert misses("increment", alpha).max() > 0.05


def test_unit_gain_at_alpha_zero_is_the_base_and_it_is_loaded_as_it_was_saved(tiny: VLM, tmp_path: Path) -> None:
    data = Dataset("a", DATA.examples[:4])
    asked = [Conversation.ask("what is it", blank_image(16))]
    nothing = CMRM(alpha=0.0, mode="unit_gain").fit(tiny, data, seed=0)
    assert torch.equal(tiny.with_mend(nothing).logits(asked), tiny.logits(asked))
    mend = CMRM(alpha=0.5, mode="unit_gain").fit(tiny, data, seed=0)
    mend.save(tmp_path / "mend")
    loaded = Mend.load(tmp_path / "mend")
    assert (loaded.digest, loaded.card) == (mend.digest, mend.card)
    assert torch.equal(tiny.with_mend(loaded).logits(asked), tiny.with_mend(mend).logits(asked))


def test_no_edit_of_unit_gain_is_above_its_cap() -> None:
    """States beside the image are 14, 29, 89: at a cap of 0.1 no edit is longer than 1.4, 2.9, 8.9."""
    mend = CMRM(mode="unit_gain", cap=0.1).fit(AMPLIFYING, DATA, seed=0)
    sizes = [abs(edit.vector.item()) for edit in mend.edits]
    assert all(size <= most + 1e-5 for size, most in zip(sizes, (1.4, 2.9, 8.9), strict=True))
    assert sizes[0] == pytest.approx(1.4)


@given(cap=st.floats(0.01, 2.0), seed=st.integers(0, 1000), alpha=st.floats(0.1, 3.0))
def test_no_dose_is_above_the_cap_and_short_edits_are_left_alone(cap: float, seed: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    edit, size = alpha * torch.randn(6, 5, generator=generator), torch.rand(6, generator=generator) + 0.1
    short = capped(edit, size, cap)
    assert bool((short.norm(dim=-1) <= cap * size * (1 + 1e-5)).all())
    within = edit.norm(dim=-1) <= cap * size * (1 - 1e-6)
    assert torch.equal(short[within], edit[within])
    torch.testing.assert_close(cosine_similarity(short, edit, dim=-1), torch.ones(6))
    assert torch.equal(capped(edit, size, None), edit)


def test_the_mean_colour_is_zero_to_the_model(tiny: VLM) -> None:
    image = corrupt_image("mean_colour", 16, 0, tiny.mean_colour)
    pixels = tiny.reader.inputs([Conversation.ask("x", image)])["pixel_values"]
    assert pixels.abs().max() < 0.02


def linearised(vlm: VLM) -> None:
    """Make every decoder block the identity, so that the stack is linear and has no attention."""
    for block in vlm.anatomy.blocks:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
        torch.nn.init.zeros_(block.mlp.down_proj.weight)


@pytest.mark.parametrize("mode", ["increment", "last_only"])
def test_subtracting_the_shift_restores_text_logits_on_a_linear_stack(mode: str) -> None:
    """On identity blocks a constant added to image rows is exactly the shift, and goes away."""
    from vlmend.testing import tiny_vlm

    vlm = tiny_vlm(seed=3)
    linearised(vlm)
    planted = torch.randn(vlm.anatomy.width, generator=torch.Generator().manual_seed(0))
    image = blank_image(16)

    def plant(module: object, args: object, output: Tensor) -> Tensor:
        return output + planted if output.shape[0] == 1 and seen["image"] else output

    seen = {"image": False}
    handle = vlm.anatomy.blocks[0].register_forward_hook(plant)
    counter = vlm.anatomy.vision.register_forward_hook(lambda *_: seen.update(image=True))
    prompts = ["abc", "what now", "tell me"]

    class OneByOne(VLM):
        def hidden(self, batch, sites):
            rows = []
            for conversation in batch:
                seen.update(image=False)
                rows.append(super().hidden([conversation], sites))
            return {site: torch.cat([row[site] for row in rows]) for site in sites}

    target = OneByOne(**{f: getattr(vlm, f) for f in ("name", "model", "processor", "anatomy", "model_digest")})
    mend = CMRM(mode=mode).fit(target, Dataset("x", tuple(Example(p, p, "harmful") for p in prompts)), seed=0)  # type: ignore[arg-type]
    total = -torch.stack([edit.vector for edit in mend.edits]).sum(0)
    assert cosine_similarity(total, planted, dim=0) >= 0.99
    for prompt in prompts:
        seen.update(image=False)
        text = vlm.logits([Conversation.ask(prompt)])
        seen.update(image=False)
        mended = target.with_mend(mend).logits([Conversation.ask(prompt, image)])
        torch.testing.assert_close(mended, text, atol=1e-4, rtol=1e-4)
    handle.remove()
    counter.remove()


@given(
    depth=st.integers(1, 8),
    picked=st.sets(st.integers(0, 7), min_size=1),
    seed=st.integers(0, 1000),
)
def test_increments_telescope_to_the_shift_of_every_selected_layer(depth: int, picked: set[int], seed: int) -> None:
    layers = sorted(layer % depth for layer in picked)
    layers = sorted(set(layers))
    mean = torch.randn(depth, 5, generator=torch.Generator().manual_seed(seed))
    done = torch.zeros(5)
    for layer, step in steps_of(mean, layers, "increment").items():
        done = done + step
        torch.testing.assert_close(done, mean[layer])


@given(layer=st.integers(0, 7), seed=st.integers(0, 1000))
def test_with_one_layer_the_three_modes_agree(layer: int, seed: int) -> None:
    mean = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
    found = [list(steps_of(mean, [layer], mode).items()) for mode in ("increment", "full", "last_only")]
    assert all(torch.equal(a[0][1], found[0][0][1]) for a in found)


def test_the_shift_is_the_naive_mean_of_differences(tiny: VLM) -> None:
    """The streaming pass against the definition, computed one request at a time."""
    examples = DATA.examples[:20]
    shift = measure_shift(tiny, examples, blank_image(16))
    sites = [Site("language", layer) for layer in range(tiny.layers)]
    deltas = []
    for example in examples:
        seen = tiny.hidden([Conversation.ask(example.prompt, blank_image(16))], sites)
        text = tiny.hidden([Conversation.ask(example.prompt)], sites)
        deltas.append(torch.cat([seen[site] - text[site] for site in sites]))
    naive = torch.stack(deltas).mean(0)
    torch.testing.assert_close(shift.mean, naive, atol=1e-5, rtol=1e-4)
    cosines = torch.stack([cosine_similarity(delta, naive, dim=-1) for delta in deltas]).mean(0)
    torch.testing.assert_close(shift.agreement, cosines, atol=1e-5, rtol=1e-4)


def test_measuring_twice_gives_the_same_bits(tiny: VLM) -> None:
    first, second = (measure_shift(tiny, DATA.examples[:10], blank_image(16)) for _ in range(2))
    assert torch.equal(first.mean, second.mean)


def test_one_anchor_equal_to_the_request_restores_its_text_state_at_the_last_layer(tiny: VLM) -> None:
    """I' = I, alpha 1, last layer only: the mended state is the text-only state (card 1.4)."""
    example = Example("one", "what is it", "harmful", image=None)
    mend = CMRM(mode="last_only").fit(tiny, Dataset("one", (example,)), seed=0)
    mended = tiny.with_mend(mend).logits([Conversation.ask("what is it", blank_image(16))])
    torch.testing.assert_close(mended, tiny.logits([Conversation.ask("what is it")]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "wanted"), [("all", (0, 1, 2, 3)), ("1-2", (1, 2)), ("3,0", (0, 3)), ("0,2-3,2", (0, 2, 3))]
)
def test_layers_are_read(text: str, wanted: tuple[int, ...]) -> None:
    assert layers_of(text, 4) == wanted


@pytest.mark.parametrize("text", ["4", "x", "", "2-", "-1", "1-9"])
def test_wrong_layers_are_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        layers_of(text, 4)


def test_no_anchor_is_refused(tiny: VLM) -> None:
    benign = Dataset("b", (replace(DATA.examples[0], label="benign"),))
    with pytest.raises(BadData, match="no harmful request"):
        CMRM(anchors="harmful").fit(tiny, benign, seed=0)
