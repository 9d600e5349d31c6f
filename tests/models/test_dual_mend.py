"""Views of dual encoders with mends: what each kind of edit does, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from tests.models import duals
from torch.nn.functional import normalize

from vlmend.attacks.tasks import loss_and_gradient, task_of
from vlmend.core.dual_edits import (
    AcceptAbove,
    DualEdit,
    InsertTokens,
    MapImages,
    MapTexts,
    Rerank,
    ScaleLogits,
    TurnFrom,
)
from vlmend.core.edits import AddVector, AnyEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.metrics.detection import mcm
from vlmend.core.sites import Site
from vlmend.core.state_edits import ModuleEdit
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights
from vlmend.errors import BadImage, BadParameter, MendMismatch
from vlmend.models.dual.encoder import DualEncoder, dual_of
from vlmend.models.loading.dual import load_dual
from vlmend.models.loading.vlm import LoadOptions
from vlmend.testing import full_digest, hook_count, tiny_clip

IMAGES = [noise_image(16, k) for k in range(4)]
TEXTS = ["a cat", "two dogs", "x"]


def mend_of(target: DualEncoder, *edits: AnyEdit) -> Mend:
    return Mend(edits, MendCard("m", {}, target.name, target.model_digest, "d", "", 0, {}, {}, ""))


def matrix(width: int) -> torch.Tensor:
    return torch.randn(width, width, generator=torch.Generator().manual_seed(0))


def test_texts_are_mapped_and_have_length_1_again() -> None:
    target = tiny_clip()
    P = matrix(target.width)
    view = target.with_mend(mend_of(target, MapTexts(P, 0.5)))
    plain = target.embed_texts(TEXTS)
    torch.testing.assert_close(view.embed_texts(TEXTS), normalize(0.5 * plain + 0.5 * plain @ P.T, dim=1))
    assert torch.equal(view.embed_images(IMAGES), target.embed_images(IMAGES))
    cosines = view.embed_images(IMAGES) @ view.embed_texts(TEXTS).T
    torch.testing.assert_close(view.logits(IMAGES, TEXTS), target.towers.scale * cosines)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_logits_are_scaled_whole_and_the_order_stays(name: str) -> None:
    """With a sigmoid the bias is scaled too: it is a part of the logit."""
    target = dual_of(*duals.built(name), name)
    view = target.with_mend(mend_of(target, ScaleLogits(4.0)))
    torch.testing.assert_close(view.logits(IMAGES, TEXTS), target.logits(IMAGES, TEXTS) / 4)
    half = target.with_mend(mend_of(target, ScaleLogits(4.0, 0.5)))
    torch.testing.assert_close(half.logits(IMAGES, TEXTS), target.logits(IMAGES, TEXTS) * 0.625)
    assert [r.order for r in view.rank(IMAGES, TEXTS)] == [r.order for r in target.rank(IMAGES, TEXTS)]


def test_images_at_the_threshold_are_accepted_and_those_below_are_not() -> None:
    target = tiny_clip()
    scores = mcm(target.embed_images(IMAGES) @ target.embed_texts(TEXTS).T)
    threshold = float(scores.sort().values[1])
    view = target.with_mend(mend_of(target, AcceptAbove(tuple(TEXTS), threshold)))
    assert view.accepts(IMAGES).sum() == 3
    assert target.accepts(IMAGES).all()
    stricter = view.with_mend(mend_of(target, AcceptAbove(tuple(TEXTS), 1.0)))
    assert not stricter.accepts(IMAGES).any()


def test_mends_act_in_their_order_and_show_in_the_id() -> None:
    target = tiny_clip()
    one, two = mend_of(target, MapTexts(matrix(target.width))), mend_of(target, MapTexts(matrix(target.width).T))
    first, second = target.with_mend(one).with_mend(two), target.with_mend(two).with_mend(one)
    assert not torch.allclose(first.embed_texts(TEXTS), second.embed_texts(TEXTS))
    assert first.id == f"{target.name}+m@{one.digest[:8]}+m@{two.digest[:8]}"
    assert target.id == target.name


def beside(stack: Literal["vision", "text"], width: int = 16) -> ModuleEdit:
    generator = torch.Generator().manual_seed(3)
    read, write = (torch.randn(shape, generator=generator) for shape in ((4, width), (width, 4)))
    return ModuleEdit(Site(stack, 0, "embedding"), read, torch.ones(4), write, torch.ones(width), 0.5)


ADAPTER = LoadAdapter("vision_model.encoder.layers.0.mlp.fc1", torch.eye(32)[:2], torch.eye(64)[:, :2])
TEXT_ADAPTER = LoadAdapter("text_model.encoder.layers.1.mlp.fc2", torch.eye(64)[:1], torch.eye(32)[:, :1])
WEIGHT = ReplaceWeights("visual_projection.weight", torch.randn(16, 32, generator=torch.Generator().manual_seed(4)))
EDITS: tuple[DualEdit, ...] = (
    MapTexts(torch.ones(16, 16)), MapImages(torch.ones(16, 16)), TurnFrom(torch.eye(16)[:2], "vision"),
    beside("vision"), beside("text"), ScaleLogits(2.0),
    InsertTokens("vision", torch.ones(2, 1, 32)), InsertTokens("text", torch.ones(1, 2, 32)),
    ADAPTER, TEXT_ADAPTER, WEIGHT,
)  # fmt: skip


def test_images_are_mapped_and_have_length_1_again() -> None:
    target = tiny_clip()
    P = matrix(target.width)
    view = target.with_mend(mend_of(target, MapImages(P, 0.5)))
    plain = target.embed_images(IMAGES)
    torch.testing.assert_close(view.embed_images(IMAGES), normalize(0.5 * plain + 0.5 * plain @ P.T, dim=1))
    assert torch.equal(view.embed_texts(TEXTS), target.embed_texts(TEXTS))


@pytest.mark.parametrize("stack", ["vision", "text"])
def test_a_module_stands_beside_the_embedding_before_it_has_length_1(stack: Literal["vision", "text"]) -> None:
    target = tiny_clip()
    edit = beside(stack)
    view = target.with_mend(mend_of(target, edit))
    with torch.no_grad():
        plain = target.image_features(target.pixels(IMAGES)) if stack == "vision" else target.text_features(TEXTS)
    found, other = (view.embed_images(IMAGES), view.embed_texts(TEXTS))[:: 1 if stack == "vision" else -1]
    by_hand = plain + 0.5 * ((plain @ edit.read.T + 1).relu() @ edit.write.T + 1)
    torch.testing.assert_close(found, normalize(by_hand, dim=1), atol=1e-5, rtol=0)
    assert torch.equal(other, target.embed_texts(TEXTS) if stack == "vision" else target.embed_images(IMAGES))


def test_a_replaced_weight_gives_what_a_model_with_that_weight_gives() -> None:
    target, other = tiny_clip(), tiny_clip()
    before = target.towers.model.visual_projection.weight
    half = before.detach() + 0.5 * (WEIGHT.value - before.detach())
    with torch.no_grad():
        other.towers.model.visual_projection.weight.copy_(half)
    view = target.with_mend(mend_of(target, WEIGHT).scaled(0.5))
    torch.testing.assert_close(view.embed_images(IMAGES), other.embed_images(IMAGES), atol=1e-6, rtol=0)
    assert target.towers.model.visual_projection.weight is before


@pytest.mark.parametrize("edit", [ADAPTER, TEXT_ADAPTER], ids=["vision", "text"])
def test_an_adapter_gives_what_the_sum_of_weights_gives(edit: LoadAdapter) -> None:
    target, other = tiny_clip(), tiny_clip()
    with torch.no_grad():
        other.towers.model.get_submodule(edit.module).weight.add_(edit.up @ edit.down)
    view = target.with_mend(mend_of(target, edit))
    torch.testing.assert_close(view.logits(IMAGES, TEXTS), other.logits(IMAGES, TEXTS), atol=1e-5, rtol=0)
    assert (view.logits(IMAGES, TEXTS) - target.logits(IMAGES, TEXTS)).abs().max() > 1e-4


def test_states_are_read_under_the_edits_of_weights() -> None:
    target = tiny_clip()
    site = Site("vision", 1)
    view = target.with_mend(mend_of(target, ADAPTER))
    assert not torch.allclose(view.hidden(IMAGES, [site])[site], target.hidden(IMAGES, [site])[site])


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_pixels_embed_as_images_do_and_their_gradient_goes_through_the_edit(edit: DualEdit) -> None:
    target = tiny_clip()
    view = target.with_mend(mend_of(target, edit))
    pixels = view.pixels(IMAGES)
    torch.testing.assert_close(view.embed_pixels(pixels), view.embed_images(IMAGES), atol=1e-5, rtol=0)
    logits = view.scored(view.embed_pixels(pixels), view.embed_texts(TEXTS))
    torch.testing.assert_close(logits, view.logits(IMAGES, TEXTS), atol=1e-4, rtol=0)

    def energy(seen: DualEncoder) -> torch.Tensor:
        return seen.image_gradient(pixels, lambda made: seen.scored(made, seen.embed_texts(TEXTS)).square().sum())

    bare, mended = energy(target), energy(view)
    assert (bare - mended).abs().max() > 1e-6


@pytest.mark.parametrize("edit", [*EDITS, MapImages(matrix(16), 0.5)], ids=lambda edit: type(edit).__name__)
def test_the_loss_that_attacks_climb_has_the_slope_of_the_mended_view(edit: DualEdit) -> None:
    """Central differences of the loss along the gradient that an attack is given; it may be 0 (`MapImages` of ones)."""
    target = tiny_clip()
    view = target.with_mend(mend_of(target, edit))
    rows = [Example(str(k), image=image, answers=(f"thing {k}",)) for k, image in enumerate(IMAGES[:2])]
    task = task_of(view, Dataset("d", tuple(rows)))
    pixels = task.pixels(task.seen(rows))
    _, gradient = loss_and_gradient(task, rows, pixels, pixels.values)
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-9)
    step = 0.05 * gradient / length[:, None, None, None]
    with torch.no_grad():
        up, down = (task.loss(rows, replace(pixels, values=pixels.values + k * step)) for k in (1, -1))
    torch.testing.assert_close((up - down) / 0.1, length, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_the_base_is_the_same_bit_for_bit_before_and_after_a_mended_call_and_an_error_in_it(edit: DualEdit) -> None:
    target = tiny_clip()
    before = target.logits(IMAGES, TEXTS)
    state = (full_digest(target.towers.model), hook_count(target.towers.model))
    view = target.with_mend(mend_of(target, edit))
    assert not torch.equal(view.logits(IMAGES, TEXTS), before)
    with pytest.raises(BadImage):
        view.embed_images([IMAGES[0], Image(b"no image", "bad.png")])
    assert torch.equal(target.logits(IMAGES, TEXTS), before)
    assert torch.equal(target.with_mend(mend_of(target, edit).scaled(0.0)).logits(IMAGES, TEXTS), before)
    assert (full_digest(target.towers.model), hook_count(target.towers.model)) == state


def test_images_are_retrieved_best_first_and_equal_ones_in_the_order_given() -> None:
    target = tiny_clip()
    gallery = [*IMAGES, IMAGES[0]]
    cosines = (target.embed_texts(TEXTS) @ target.embed_images(gallery).T).tolist()
    for row, order in zip(cosines, target.retrieve(TEXTS, gallery), strict=True):
        assert list(order) == sorted(range(5), key=lambda k: (-row[k], k))


def test_the_identity_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    model, processor = duals.built("clip")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    built, loaded = dual_of(model, processor, "a"), load_dual(tmp_path, options=LoadOptions(device="cpu"))
    assert set(built.identity) == {"weights", "decoding", "config", "processor", "tokenizer"}
    built.embed_texts(TEXTS)
    assert loaded.identity == built.identity


def test_a_mend_is_refused_where_the_processor_is_another_one() -> None:
    model, processor = duals.built("clip")
    target = dual_of(model, processor, "a")
    card = replace(mend_of(target, ScaleLogits(2.0)).card, identity=dict(target.identity))
    _, other = duals.built("clip")
    other.image_processor.image_mean = [0.0, 0.0, 0.0]
    with pytest.raises(MendMismatch, match="with another processor, though with the same weights"):
        dual_of(model, other, "a").with_mend(Mend((ScaleLogits(2.0),), card))


@pytest.mark.parametrize(
    "edit", [*EDITS, AcceptAbove(("x",), 0.5), Rerank(("a", "b"), ("x", "y"))], ids=lambda edit: type(edit).__name__
)
def test_scaled_to_0_an_edit_is_gone(edit: DualEdit) -> None:
    target = tiny_clip()
    assert target.with_mend(mend_of(target, edit).scaled(0.0)).edits == ()
    assert len(target.with_mend(mend_of(target, edit)).edits) == 1


def test_edits_of_models_that_answer_and_mends_of_others_are_refused() -> None:
    target = tiny_clip()
    with pytest.raises(BadParameter, match="no place for AddVector"):
        target.with_mend(mend_of(target, AddVector(Site("text", 0), torch.ones(32))))
    with pytest.raises(BadParameter, match=r"no place for ModuleEdit at language\.0\.resid_post"):
        target.with_mend(mend_of(target, replace(beside("text"), site=Site("language", 0))))
    with pytest.raises(MendMismatch, match="was fitted on tiny-clip-0"):
        tiny_clip(seed=1).with_mend(mend_of(target, ScaleLogits(2.0)))


def test_weights_that_are_not_there_or_of_another_shape_are_refused_together() -> None:
    target = tiny_clip()
    wrong = (replace(ADAPTER, module="nowhere"), replace(WEIGHT, value=torch.ones(2, 2)))
    with pytest.raises(BadParameter, match=r"no module nowhere; a parameter visual_projection\.weight of shape"):
        target.with_mend(mend_of(target, *wrong))
