"""FARE: the loss by hand, why it starts at random, a tower that gets more robust and comes off bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.provenance import fingerprint
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights
from vlmend.errors import BadData, BadParameter, MendMismatch
from vlmend.methods.robustness.fare import Fare, distance
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.vlm import VLM
from vlmend.testing import full_digest, tiny_clip, tiny_vlm
from vlmend.training.adversary import Adversary, worst_pixels
from vlmend.training.towers import for_vlm
from vlmend.training.twin import How

IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("pictures", tuple(Example(str(k), image=image) for k, image in enumerate(IMAGES)))
QUICK = Fare(epsilon=0.1, steps=12, inner=2, batch=4, rate=3e-3)
BATCH = [Conversation.ask("what is it", IMAGES[0]), Conversation.ask("hello")]


def worst_distance(target: DualEncoder, before: DualEncoder, epsilon: float) -> float:
    """How far the adversary can push the target's embeddings from those of before."""
    pixels = target.pixels(IMAGES)
    loss = distance(target, pixels, before.image_features(pixels).detach())
    return float(loss(worst_pixels(loss, pixels.values, Adversary(epsilon, 10, epsilon / 4), 0)))


def test_the_loss_is_summed_over_the_width_and_averaged_over_the_batch() -> None:
    """Embeddings that are 1 off in each of 16 numbers: 16, whatever the batch."""
    target = tiny_clip()
    pixels = target.pixels(IMAGES)
    loss = distance(target, pixels, target.image_features(pixels).detach() + 1)
    torch.testing.assert_close(loss(pixels.values), torch.tensor(16.0))


def test_untouched_the_loss_is_0_and_its_gradient_exactly_0_at_the_picture_itself() -> None:
    """So the adversary has to start elsewhere; from its random start it finds a loss above 0."""
    target = tiny_clip()
    pixels = target.pixels(IMAGES)
    loss = distance(target, pixels, target.image_features(pixels).detach())
    values = pixels.values.clone().requires_grad_()
    found = loss(values)
    (gradient,) = torch.autograd.grad(found, values)
    assert found == 0
    assert not gradient.any()
    assert worst_distance(target, target, 0.0) == 0
    assert worst_distance(target, target, 0.1) > 0


@pytest.mark.parametrize(("train", "kind"), [("weights", ReplaceWeights), ("adapters", LoadAdapter)])
def test_the_tower_is_pushed_less_far_afterwards_and_texts_stay(train: How, kind: type) -> None:
    target = tiny_clip()
    mend = replace(QUICK, train=train).fit(target, DATA, seed=0)
    assert mend.edits
    assert all(isinstance(edit, kind) for edit in mend.edits)
    mended = target.with_mend(mend)
    assert worst_distance(mended, target, 0.1) < 0.9 * worst_distance(target, target, 0.1)
    assert torch.equal(mended.embed_texts(["a cat"]), target.embed_texts(["a cat"]))


def test_taken_off_the_base_is_back_bit_for_bit() -> None:
    target = tiny_clip()
    before, embedded = full_digest(target.towers.model), target.embed_images(IMAGES)
    mended = target.with_mend(QUICK.fit(target, DATA, seed=0))
    assert not torch.equal(mended.embed_images(IMAGES), embedded)
    assert torch.equal(mended.bare.embed_images(IMAGES), embedded)
    assert torch.equal(target.embed_images(IMAGES), embedded)
    assert full_digest(target.towers.model) == before


def test_the_same_seed_gives_the_same_mend_and_another_seed_another() -> None:
    first, again, other = (QUICK.fit(tiny_clip(), DATA, seed=seed).digest for seed in (0, 0, 1))
    assert first == again != other


def test_its_own_pictures_are_of_every_kind_and_bring_no_label() -> None:
    data = Fare().sample_data()
    assert {row.group for row in data.examples} == {"object", "person", "word", "scene"}
    assert all(row.image and row.label is None and not row.answers for row in data.examples)


def test_data_without_pictures_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="holds no picture"):
        Fare().fit(tiny_clip(), Dataset("words", (Example("a", "hello"),)), seed=0)
    for wrong in ({"epsilon": 0.0}, {"epsilon": 2.0}, {"steps": 0}, {"inner": 0}, {"rate": 0.0}, {"batch": 0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Fare(**wrong)


# --- as the tower of a VLM


def with_tower_of(clip: DualEncoder, tiny: VLM) -> VLM:
    """A tiny LLaVA that looks through the tower of a CLIP."""
    config: Any = clip.towers.model.config
    parts: Any = tiny.model.config
    torch.manual_seed(1)
    model: Any = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=config.vision_config, text_config=parts.text_config,
                    image_token_index=parts.image_token_index, vision_feature_layer=-1, image_seq_length=4)
    ).eval()  # fmt: skip
    model.generation_config = tiny.model.generation_config
    assert clip.towers.vision is not None
    model.get_submodule(tiny.anatomy.vision_path).load_state_dict(clip.towers.vision.state_dict())
    return VLM("tiny-llava", model, tiny.processor, find_anatomy(model), fingerprint(model))


@pytest.fixture
def fitted() -> tuple[DualEncoder, Mend]:
    clip = tiny_clip()
    return clip, QUICK.fit(clip, DATA, seed=0)


def test_a_vlm_that_looks_through_the_tower_sees_what_the_mended_tower_gives(fitted: tuple[DualEncoder, Mend]) -> None:
    clip, mend = fitted
    vlm = with_tower_of(clip, tiny_vlm())
    moved = for_vlm(mend, clip, vlm)
    mended = vlm.with_mend(moved)
    pixels = {"pixel_values": vlm.reader.inputs(BATCH[:1])["pixel_values"]}
    seen: list[torch.Tensor] = []
    watch = vlm.anatomy.vision.register_forward_hook(lambda m, a, out: seen.append(out.last_hidden_state.clone()))
    mended.logits(BATCH)
    watch.remove()
    with clip.with_mend(mend).mended_weights(), torch.no_grad():
        wanted = clip.towers.model.vision_model(**pixels).last_hidden_state
    torch.testing.assert_close(seen[0], wanted, atol=1e-5, rtol=0)
    before, after = vlm.logits(BATCH), mended.logits(BATCH)
    assert (before[0] - after[0]).abs().max() > 1e-4
    assert torch.equal(before[1], after[1])


def test_taken_off_a_vlm_its_replies_are_back(fitted: tuple[DualEncoder, Mend]) -> None:
    clip, mend = fitted
    vlm = with_tower_of(clip, tiny_vlm())
    before = [reply.text for reply in vlm.generate(BATCH, Sampling(8))]
    digest = full_digest(vlm.model)
    vlm.with_mend(for_vlm(mend, clip, vlm)).generate(BATCH, Sampling(8))
    assert [reply.text for reply in vlm.generate(BATCH, Sampling(8))] == before
    assert full_digest(vlm.model) == digest


def test_a_vlm_with_another_tower_is_refused_and_told_why(fitted: tuple[DualEncoder, Mend]) -> None:
    clip, mend = fitted
    with pytest.raises(MendMismatch, match=r"\d+ of \d+ parameters .* are not those of tiny-clip-0"):
        for_vlm(mend, clip, with_tower_of(tiny_clip(seed=1), tiny_vlm()))
    with pytest.raises(MendMismatch, match=r"parameters of the vision tower of tiny-0 are not those|has not the"):
        for_vlm(mend, clip, tiny_vlm())


def test_edits_outside_the_tower_do_not_go_along(fitted: tuple[DualEncoder, Mend]) -> None:
    clip, mend = fitted
    outside = ReplaceWeights("visual_projection.weight", torch.zeros(16, 32))
    with pytest.raises(BadParameter, match=r"visual_projection\.weight does not act inside"):
        for_vlm(replace(mend, edits=(*mend.edits, outside)), clip, with_tower_of(clip, tiny_vlm()))
