"""Dual encoders of every family: embeddings, ranks, states, gradients, loading."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
import transformers as hf
from tests.models import duals
from torch.nn.functional import normalize

from vlmend.core.images import Image, noise_image
from vlmend.core.sites import Site
from vlmend.core.targets import DualTarget
from vlmend.errors import AnatomyProblem, BadImage, BadParameter, MissingExtra, ModelProblem
from vlmend.models.dual.encoder import BATCH, DualEncoder, dual_of
from vlmend.models.loading.dual import load_dual
from vlmend.models.loading.vlm import LoadOptions
from vlmend.testing import full_digest, hook_count, tiny_clip, tiny_vlm

EVERY = pytest.mark.parametrize("name", duals.FAMILIES)
WIDE = Image.from_pixels(PIL.Image.linear_gradient("L").resize((40, 16)).convert("RGB"), "wide")
IMAGES = [noise_image(20, 1), WIDE, noise_image(33, 2)]
TEXTS = ["a cat", "two dogs in the rain", "x", "b " * 100]


@cache
def family(name: str) -> DualEncoder:
    return dual_of(*duals.built(name), name)


def plain_logits(name: str, images: list[Image], texts: list[str]) -> torch.Tensor:
    """What the model card of each family does, without any of our code."""
    model, processor = duals.built(name)
    padding: dict[str, Any] = {"padding": True}
    if name.startswith("siglip"):
        padding = {"padding": "max_length", "max_length": 64, "padding_side": "right", "return_attention_mask": False}
    if name == "align":
        padding = {}  # its processor pads to 64 by itself
    longest = {"altclip": 24, "blip_itm": 40, "chinese_clip": 40}.get(name)
    inputs = processor(
        text=texts,
        images=[i.decode() for i in images],
        truncation=True,
        return_tensors="pt",
        **padding,
        **({"max_length": longest} if longest else {}),
    )
    with torch.no_grad():
        if name == "blip_itm":
            return model(**inputs, use_itm_head=False).itm_score
        return model(**inputs).logits_per_image


@EVERY
def test_logits_are_those_of_the_plain_forward_call(name: str) -> None:
    torch.testing.assert_close(
        family(name).logits(IMAGES, TEXTS), plain_logits(name, IMAGES, TEXTS), atol=1e-5, rtol=1e-5
    )


@EVERY
def test_embeddings_have_length_1_and_depend_on_what_is_embedded(name: str) -> None:
    dual = family(name)
    for embedded in (dual.embed_images(IMAGES), dual.embed_texts(TEXTS)):
        assert embedded.shape[1] == dual.width
        assert embedded.dtype == torch.float32
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(len(embedded)))
        assert torch.pdist(embedded).min() > 1e-3


@EVERY
def test_batches_do_not_show(name: str) -> None:
    """More than one batch of mixed sizes and lengths, against one by one."""
    dual = family(name)
    images = [noise_image(16 + k % 5, k) for k in range(BATCH)] + IMAGES
    texts = [("ab " * (k % 9 + 1)).strip() for k in range(BATCH)] + TEXTS
    alone = torch.cat([dual.embed_images([image]) for image in images])
    torch.testing.assert_close(dual.embed_images(images), alone, atol=1e-5, rtol=0)
    alone = torch.cat([dual.embed_texts([text]) for text in texts])
    torch.testing.assert_close(dual.embed_texts(texts), alone, atol=1e-5, rtol=0)
    for batch, stack in ((images, "vision"), (texts, "text")):
        site = Site(stack, dual.layers(stack) - 1)
        alone = torch.cat([dual.hidden([item], [site])[site] for item in batch])
        torch.testing.assert_close(dual.hidden(batch, [site])[site], alone, atol=1e-5, rtol=1e-5)


@EVERY
def test_the_gradient_is_the_slope_in_pixels_from_0_to_1(name: str) -> None:
    """Central differences along one direction of change."""
    dual = family(name)
    weight = torch.linspace(-1, 1, dual.width)

    def objective(embedded: torch.Tensor) -> torch.Tensor:
        return (embedded @ weight).sum()

    pixels = dual.pixels(IMAGES)
    assert float(pixels.values.min()) >= 0
    assert float(pixels.values.max()) <= 1
    gradient = dual.image_gradient(IMAGES, objective)
    direction = gradient / gradient.norm()
    step = 0.02
    up, down = (
        objective(dual.embed_pixels(replace(pixels, values=pixels.values + k * step * direction))) for k in (1, -1)
    )
    slope = float((up - down) / (2 * step))
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)
    assert slope > 1e-3


@EVERY
def test_pixels_and_images_embed_the_same(name: str) -> None:
    dual = family(name)
    torch.testing.assert_close(dual.embed_pixels(dual.pixels(IMAGES)), dual.embed_images(IMAGES), atol=1e-5, rtol=0)


@EVERY
def test_a_saved_folder_loads_and_embeds_the_same(name: str, tmp_path: Path) -> None:
    model, processor = duals.built(name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, dual = load_dual(tmp_path, name="again", options=LoadOptions(device="cpu")), family(name)
    assert (loaded.id, loaded.model_digest, loaded.pair_kind) == ("again", dual.model_digest, dual.pair_kind)
    assert type(loaded.towers.model) is type(model)
    torch.testing.assert_close(loaded.logits(IMAGES, TEXTS), dual.logits(IMAGES, TEXTS))


def test_pixels_are_those_before_normalisation() -> None:
    _, processor = duals.built("clip")
    plain = processor.image_processor([i.decode() for i in IMAGES], do_normalize=False, return_tensors="pt")
    torch.testing.assert_close(family("clip").pixels(IMAGES).values, plain.pixel_values, atol=1e-6, rtol=0)


def test_the_gradient_of_padding_is_zero() -> None:
    """40 x 16 pixels become 2 x 2 patches of 8 or more: the rest up to six is padding."""
    dual = family("siglip2_naflex")
    pixels = dual.pixels([noise_image(16, 1)])
    real = pixels.rest["pixel_attention_mask"][0].bool()
    assert real.tolist() == [True] * 4 + [False] * 2
    gradient = dual.image_gradient(pixels, lambda embedded: embedded[0, 0])
    assert (gradient[0].abs().sum(1) > 0).tolist() == real.tolist()


@pytest.mark.parametrize("name", ["siglip", "siglip2_naflex"])
def test_siglip_texts_are_padded_to_64_on_the_right_without_a_mask(name: str) -> None:
    inputs = family(name).towers.tokens(["ab"], 0)
    assert list(inputs) == ["input_ids"]
    letters = [duals.GEMMA_WORDS.index(letter) for letter in "ab"]
    assert inputs["input_ids"].tolist() == [letters + [0] * 62]


@pytest.mark.parametrize(("name", "kept"), [("clip", 22), ("align", 62), ("altclip", 11), ("siglip", 32)])
def test_long_texts_are_cut_to_what_the_family_reads(name: str, kept: int) -> None:
    """Places for single letters: 24 and 64 less two special tokens; AltCLIP's 22 and SigLIP's 64 hold spaces too."""
    dual = family(name)
    long, cut, shorter = dual.embed_texts(["b " * 100, ("b " * kept), ("b " * (kept - 1))])
    torch.testing.assert_close(long, cut)
    assert (long - shorter).abs().max() > 1e-4


def test_scale_and_bias_are_the_models_own() -> None:
    """exp(2) = 7.389 for logit_scale 2, 1 / 0.25 for ALIGN's temperature, none for BLIP, whose class dropped it."""
    found = {
        name: (family(name).pair_kind, family(name).towers.scale, family(name).towers.bias) for name in duals.FAMILIES
    }
    assert found["clip"] == ("softmax", pytest.approx(math.exp(2)), 0.0)
    assert found["siglip"] == found["siglip2_naflex"] == ("sigmoid", pytest.approx(math.exp(2)), -3.0)
    assert found["align"] == ("softmax", 4.0, 0.0)
    assert found["blip_itm"] == ("softmax", 1.0, 0.0)


def test_probabilities_follow_the_kind() -> None:
    shared = family("clip").probabilities(IMAGES, TEXTS)
    torch.testing.assert_close(shared.sum(1), torch.ones(3))
    siglip = family("siglip")
    one, two = siglip.probabilities(IMAGES, TEXTS)[:, :1], siglip.probabilities(IMAGES, TEXTS[:1])
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, 1 / (1 + torch.exp(-siglip.logits(IMAGES, TEXTS[:1]))))


def test_ranks_fall_and_ties_keep_their_order() -> None:
    dual = family("clip")
    logits = dual.logits(IMAGES[:1], TEXTS[:3])[0].tolist()
    (ranked,) = dual.rank(IMAGES[:1], [*TEXTS[:3], TEXTS[0]])
    assert list(ranked.scores) == sorted(ranked.scores, reverse=True)
    best = sorted(range(3), key=lambda k: -logits[k])
    assert [k for k in ranked.order if k < 3] == best
    assert ranked.order.index(3) == ranked.order.index(0) + 1


READ: dict[tuple[str, str], Callable[[Any, torch.Tensor], torch.Tensor]] = {
    ("clip", "vision"): lambda m, h: m.visual_projection(m.vision_model.post_layernorm(h)),
    ("clip", "text"): lambda m, h: m.text_projection(m.text_model.final_layer_norm(h)),
    ("siglip", "text"): lambda m, h: m.text_model.head(m.text_model.final_layer_norm(h)),
    ("align", "text"): lambda m, h: m.text_projection(h),
    ("blip_itm", "text"): lambda m, h: m.text_proj(h),
    ("blip_itm", "vision"): lambda m, h: m.vision_proj(m.vision_model.post_layernorm(h)),
}


@pytest.mark.parametrize(("name", "stack"), READ)
def test_the_state_after_the_last_block_is_the_one_that_becomes_the_embedding(name: str, stack: str) -> None:
    dual = family(name)
    batch, embed = (IMAGES, dual.embed_images) if stack == "vision" else (TEXTS, dual.embed_texts)
    site = Site.parse(f"{stack}.1.resid_post")
    state = dual.hidden(batch, [site])[site]
    with torch.no_grad():
        made = normalize(READ[name, stack](dual.towers.model, state), dim=1)
    torch.testing.assert_close(made, embed(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "places"), [("siglip", (1,)), ("siglip2_naflex", (1,)), ("align", (2, 3))])
@pytest.mark.parametrize("layer", [0, 1])
def test_states_that_are_read_everywhere_are_averaged(name: str, places: tuple[int, ...], layer: int) -> None:
    """Against a plain hook on one image that fills its patches; ALIGN's blocks differ in width and size."""
    dual = family(name)
    seen: dict[str, torch.Tensor] = {}
    block = dual.towers.blocks("vision")[layer]
    handle = block.register_forward_hook(lambda m, a, out: seen.update(out=out.detach()))
    dual.embed_images([noise_image(16, 1)])
    handle.remove()
    state = seen["out"][:, :4] if name == "siglip2_naflex" else seen["out"]  # its last two patches are padding
    site = Site("vision", layer)
    found = dual.hidden([noise_image(16, 1)], [site])[site]
    torch.testing.assert_close(found, state.mean(places), atol=1e-5, rtol=1e-5)


def test_nothing_stays_on_the_model() -> None:
    dual = tiny_clip()
    before = (hook_count(dual.towers.model), full_digest(dual.towers.model))
    dual.hidden(TEXTS, [Site("text", 0)])
    dual.image_gradient(IMAGES, lambda embedded: embedded.sum())
    with pytest.raises(BadParameter):
        dual.hidden(TEXTS, [Site("text", 5)])
    assert (hook_count(dual.towers.model), full_digest(dual.towers.model)) == before
    assert all(weight.grad is None for weight in dual.towers.model.parameters())


def test_a_dual_encoder_is_a_dual_target() -> None:
    assert isinstance(tiny_clip(), DualTarget)


@pytest.mark.parametrize(
    ("batch", "site"),
    [(TEXTS, Site("vision", 0)), (IMAGES, Site("text", 0)), (TEXTS, Site("text", 2)), (IMAGES, Site("language", 0)),
     (TEXTS, Site("text", 0, "attn_out"))],
)  # fmt: skip
def test_sites_that_are_not_there_are_refused(batch: Any, site: Site) -> None:
    with pytest.raises(BadParameter, match=str(site)):
        tiny_clip().hidden(batch, [site])


def test_blocks_that_cannot_be_told_are_refused_for_states_only() -> None:
    dual = tiny_clip()
    blind = replace(dual, towers=replace(dual.towers, vision=None))
    assert blind.embed_images(IMAGES).shape == (3, 16)
    with pytest.raises(AnatomyProblem, match="vision blocks of CLIPModel"):
        blind.hidden(IMAGES, [Site("vision", 0)])


def test_every_bad_image_is_named() -> None:
    bad = [Image(b"no image", "one.png"), IMAGES[0], Image(b"", "two.png")]
    with pytest.raises(BadImage, match=r"2 images.*one\.png.*two\.png"):
        tiny_clip().embed_images(bad)
    with pytest.raises(BadImage, match=r"^two\.png"):
        tiny_clip().pixels(bad[1:])


@EVERY
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 60), (300, 3)])
def test_images_of_any_shape_embed_or_are_named(name: str, size: tuple[int, int]) -> None:
    image = Image.from_pixels(PIL.Image.new("RGB", size, (200, 30, 30)), "odd.png")
    assert family(name).embed_images([image, IMAGES[0]]).isfinite().all()


def test_nothing_to_embed_is_a_usage_error() -> None:
    dual = tiny_clip()
    for empty in (lambda: dual.embed_images([]), lambda: dual.embed_texts([]), lambda: dual.pixels([])):
        with pytest.raises(BadParameter, match="at least one"):
            empty()


def test_an_objective_must_be_one_number_of_the_embeddings() -> None:
    dual = tiny_clip()
    with pytest.raises(BadParameter, match=r"not \(3,\) numbers"):
        dual.image_gradient(IMAGES, lambda embedded: embedded[:, 0])
    with pytest.raises(BadParameter, match="without a gradient"):
        dual.image_gradient(IMAGES, lambda embedded: torch.zeros(()))


def test_a_processor_that_is_not_linear_has_no_pixel_gradient() -> None:
    dual = tiny_clip()

    def squared(picture: PIL.Image.Image) -> dict[str, torch.Tensor]:
        return {"pixel_values": dual.towers.picture(picture)["pixel_values"] ** 2}

    with pytest.raises(ModelProblem, match="more to colours"):
        replace(dual, towers=replace(dual.towers, picture=squared)).pixels(IMAGES)


def test_embeddings_that_are_not_finite_are_an_error() -> None:
    dual = tiny_clip()
    with torch.no_grad():
        dual.towers.model.visual_projection.weight.fill_(math.nan)
    with pytest.raises(ModelProblem, match="not finite"):
        dual.embed_images(IMAGES)


def test_a_model_that_chats_is_no_dual_encoder(tmp_path: Path) -> None:
    vlm = tiny_vlm()
    with pytest.raises(ModelProblem, match="is no dual encoder"):
        dual_of(vlm.model, vlm.processor, "llava")
    vlm.model.save_pretrained(tmp_path)
    with pytest.raises(ModelProblem, match=r"LlavaForConditionalGeneration.*is no dual encoder"):
        load_dual(tmp_path)


def test_an_embedding_for_each_position_is_refused() -> None:
    """FLAVA projects every position and leaves the choice to its losses."""
    parts = {"text_config": duals.bert(40), "image_config": {**duals.TOWER, **duals.VIEW}}
    model = hf.FlavaModel(hf.FlavaConfig(**parts, multimodal_config=duals.TOWER, projection_dim=16))
    with pytest.raises(ModelProblem, match="an embedding is one vector"):
        dual_of(model, duals.blip_itm()[1], "flava")


def test_a_checkpoint_of_one_tower_is_not_filled_with_random_weights(tmp_path: Path) -> None:
    model, processor = duals.built("siglip")
    hf.SiglipForImageClassification(model.config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ModelProblem, match=r"lacks .* weights of SiglipModel"):
        load_dual(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelProblem, match="nothing here cannot be loaded as a dual encoder"):
        load_dual(tmp_path / "nothing here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, processor = duals.built("clip")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_pickled_weights_are_read_only_when_asked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(duals.built("clip")[0].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelProblem, match=r"only pytorch_model\.bin.*allow_pickle=True"):
        load_dual(folder)
    assert load_dual(folder, options=LoadOptions(allow_pickle=True)).model_digest == family("clip").model_digest


def test_cut_off_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelProblem, match=r"model\.safetensors is no whole safetensors file"):
        load_dual(folder)


def test_a_missing_image_processor_is_named(folder: Path) -> None:
    for file in folder.glob("*processor_config.json"):
        file.unlink()
    with pytest.raises(ModelProblem, match="no image processor"):
        load_dual(folder)


def test_a_half_precision_model_embeds_nearly_the_same(folder: Path) -> None:
    """bfloat16 keeps 8 bits: embeddings of length 1 move by a few hundredths at most."""
    half = load_dual(folder, options=LoadOptions(device="cpu", dtype="bfloat16"))
    embedded = half.embed_images(IMAGES)
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded, family("clip").embed_images(IMAGES), atol=0.05, rtol=0)
    assert half.image_gradient(IMAGES, lambda made: made[:, 0].sum()).isfinite().all()


def test_options_that_dual_encoders_lack_are_refused_together(folder: Path) -> None:
    with pytest.raises(BadParameter, match="quantize, blocks"):
        load_dual(folder, options=LoadOptions(quantize="8bit", blocks="text_model"))


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip is installed")
def test_an_open_clip_folder_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(MissingExtra, match=r"vlmend\[openclip\]"):
        load_dual(tmp_path)
