"""Sample-level CMRM against three plain prefills a request, written out here without shared prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    ProcessorMixin,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.provenance import fingerprint
from vlmend.core.shifts import Mode
from vlmend.core.sites import Site
from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.cmrm_sample import CMRMSample
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.decoding.prefixes import Prefixes, sharing
from vlmend.models.decoding.shifts import row_shifts
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_tokenizer, tiny_vlm
from vlmend.testing.fakes import TEMPLATE

MODES: tuple[Mode, ...] = ("full", "increment", "last_only", "sequential")
WHITE = blank_image(16)
DATA = Dataset("two", (Example("a", "go on then", "harmful"), Example("b", "name a fruit", "harmful")))
SYSTEM = Turn("system", "be kind and brief")

SAME_SHAPE = [
    Conversation.ask("what is it", noise_image(16, 1)),
    Conversation.ask("a longer question about the thing in the picture", noise_image(16, 2)),
    Conversation.ask("and now a text without any picture, longer than the others"),
    Conversation.ask("", noise_image(16, 3)),
]
"""Every request with an image is of one shape, so that the shared read serves them all."""
OTHER_SHAPES = [
    Conversation((SYSTEM, Turn("user", "why", (noise_image(16, 4),)))),
    Conversation((Turn("user", "two pictures", (noise_image(16, 5), noise_image(16, 6))),)),
    Conversation.ask("text only"),
    Conversation((Turn("user", "hello"), Turn("assistant", "yes"), Turn("user", "and this", (noise_image(16, 7),)))),
    Conversation((Turn("user", "name it", (noise_image(16, 8),)),), lead="It is"),
]
"""No two requests with an image begin alike, so that every read is in full."""

IMAGE_FIRST = "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
WORDS_FIRST = (
    "{% for message in messages %}[{{ message['role'] }}]"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    + IMAGE_FIRST
    + "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


class ExactRotation(nn.Module):
    """Rotary positions in float64; transformers turns in float32 whatever the model's dtype, which makes the
    same words 1e-6 different beside padding."""

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.frequencies = frequencies.double()

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = (position_ids[..., None].double() * self.frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


def exact(**options: Any) -> VLM:
    """A tiny model in float64 from end to end."""
    vlm = tiny_vlm(seed=0, dtype=torch.float64, **options)
    language = vlm.model.model.language_model
    language.rotary_emb = ExactRotation(language.rotary_emb.original_inv_freq)
    return vlm


def mended(vlm: VLM, **parameters: Any) -> VLM:
    return vlm.with_mend(CMRMSample(**parameters).fit(vlm, DATA, seed=0))


@torch.inference_mode()
def forward(
    vlm: VLM, conversation: Conversation, edits: Mapping[int, Tensor], new: Sequence[int] = (), every_step: bool = False
) -> tuple[Tensor, Tensor]:
    """One plain forward call over one request and the tokens after it, with h <- h - edit at the last
    prompt token (and at all later ones): next-token logits, and each layer's state there before its edit."""
    inputs = vlm.reader.inputs([conversation])
    prompt = inputs["input_ids"].shape[1]
    tail = torch.tensor([list(new)], dtype=torch.long)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tail], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    until = prompt + len(new) if every_step else prompt
    states: list[Tensor] = []

    def hook(layer: int) -> Callable[..., Tensor]:
        def act(module: nn.Module, args: object, output: Any) -> Tensor:
            states.append(output[0, prompt - 1].clone())
            moved = output.clone()
            if layer in edits:
                moved[0, prompt - 1 : until] -= edits[layer]
            return moved

        return act

    with ExitStack() as stack:
        for layer, block in enumerate(vlm.anatomy.blocks):
            stack.callback(block.register_forward_hook(hook(layer)).remove)
        logits = vlm.model(**inputs, use_cache=False).logits[0, -1]
    return logits, torch.stack(states)


def naive_edits(
    vlm: VLM, conversation: Conversation, mode: Mode, layers: Sequence[int], alpha: float = 1.0, image: Image = WHITE
) -> dict[int, Tensor]:
    """What is subtracted at each layer, from plain prefills with and without I'."""
    if not conversation.has_image:
        return {}
    blank, words = conversation.with_images(image), conversation.without_images()
    text = forward(vlm, words, {})[1]
    if mode == "sequential":
        edits: dict[int, Tensor] = {}
        for layer in layers:
            edits[layer] = alpha * (forward(vlm, blank, edits)[1][layer] - text[layer])
        return edits
    shift = forward(vlm, blank, {})[1] - text
    match mode:
        case "full":
            return {layer: alpha * shift[layer] for layer in layers}
        case "last_only":
            return {layers[-1]: alpha * shift[layers[-1]]}
        case "increment":
            before = dict(zip(layers[1:], layers, strict=False))
            return {
                layer: alpha * (shift[layer] - shift[before[layer]] if layer in before else shift[layer])
                for layer in layers
            }


def naive_logits(vlm: VLM, batch: Sequence[Conversation], mode: Mode, layers: Sequence[int], alpha: float) -> Tensor:
    blank = blank_image(vlm.image_side)
    return torch.stack([forward(vlm, c, naive_edits(vlm, c, mode, layers, alpha, blank))[0] for c in batch])


def assert_same(found: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("batch", [SAME_SHAPE, OTHER_SHAPES], ids=["same-shape", "other-shapes"])
@pytest.mark.parametrize("layers", ["all", "1-2", "0,3"])
@pytest.mark.parametrize("mode", MODES)
def test_logits_are_those_of_three_plain_prefills(mode: Mode, layers: str, batch: list[Conversation]) -> None:
    vlm = exact()
    chosen = {"all": (0, 1, 2, 3), "1-2": (1, 2), "0,3": (0, 3)}[layers]
    found = mended(vlm, mode=mode, layers=layers, alpha=0.7).logits(batch)
    assert_same(found, naive_logits(vlm, batch, mode, chosen, 0.7))
    moved = (found - vlm.logits(batch)).abs().amax(1) > 1e-3
    assert moved.tolist() == [conversation.has_image for conversation in batch]


@pytest.mark.parametrize("scope", ["prefill", "every_step"])
def test_replies_are_those_of_decoding_without_any_cache(scope: str) -> None:
    vlm = exact()
    length = 6
    found = mended(vlm, scope=scope).generate(SAME_SHAPE, Sampling(length))
    for conversation, reply in zip(SAME_SHAPE, found, strict=True):
        edits = naive_edits(vlm, conversation, "increment", range(vlm.layers))
        new: list[int] = []
        while len(new) < length and 1 not in new:  # 1 ends the reply
            new.append(int(forward(vlm, conversation, edits, new, scope == "every_step")[0].argmax()))
        assert reply.text == vlm.processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_the_two_scopes_decode_differently() -> None:
    """Else the test above could not tell them apart."""
    vlm = exact()
    replies = [mended(vlm, scope=s).generate(SAME_SHAPE, Sampling(6)) for s in ("prefill", "every_step")]
    assert [r.text for r in replies[0]] != [r.text for r in replies[1]]


@pytest.mark.parametrize("mode", MODES)
def test_with_the_request_as_the_only_anchor_both_levels_are_one(mode: Mode) -> None:
    """The vectors of a mend are kept in float32, so equal to 1e-5 and not to 1e-9."""
    vlm = exact()
    anchor = Dataset("one", (Example("one", "what is it", "harmful"),))
    asked = [Conversation.ask("what is it", noise_image(16, 1))]
    dataset = vlm.with_mend(CMRM(mode=mode).fit(vlm, anchor, seed=0))
    assert_same(mended(vlm, mode=mode).logits(asked), dataset.logits(asked), 1e-5)


def test_the_last_layer_alone_gives_a_content_free_image_the_logits_of_its_text() -> None:
    """I' = I and alpha 1: the last state minus (itself minus the text's) is the text's."""
    vlm = exact()
    prompts = ["what is it", "a longer question", "why"]
    found = mended(vlm, layers="3").logits([Conversation.ask(p, WHITE) for p in prompts])
    assert_same(found, vlm.logits([Conversation.ask(p) for p in prompts]))


@pytest.mark.parametrize("mode", MODES)
def test_alpha_zero_is_the_base_bit_for_bit(mode: Mode) -> None:
    vlm = exact()
    asked = [Conversation.ask("what is it", WHITE), Conversation.ask("text"), Conversation.ask("and this", WHITE)]
    view = vlm.with_mend(CMRMSample(mode=mode).fit(vlm, DATA, seed=0).scaled(0.0))
    assert torch.equal(view.logits(asked), vlm.logits(asked))
    assert (mended(vlm, mode=mode).logits(asked) - vlm.logits(asked)).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_the_tower_sees_the_real_images_only_once_the_prefix_is_warm(mode: Mode) -> None:
    vlm = exact()
    view = mended(vlm, mode=mode)
    view.generate(SAME_SHAPE, Sampling(3))
    before = vlm.vision.calls
    for batch in (SAME_SHAPE, SAME_SHAPE[:1], SAME_SHAPE[1:]):
        view.generate(batch, Sampling(3))
    assert vlm.vision.calls == before + 3


def test_sharing_tells_what_requests_have_in_common() -> None:
    """One token a character: `[user]` is 6, and the image 4."""
    vlm = exact()
    asked = Conversation.ask("what", WHITE)
    assert sharing(vlm.reader, vlm.workings.prefixes, asked) == "10 tokens, 4 of them image tokens"
    assert sharing(vlm.reader, vlm.workings.prefixes, asked.without_images()) == "6 tokens, 0 of them image tokens"
    with_system = Conversation((SYSTEM, Turn("user", "what", (WHITE,))))
    longer = 10 + len("[system]be kind and brief")
    assert sharing(vlm.reader, vlm.workings.prefixes, with_system) == f"{longer} tokens, 4 of them image tokens"


@pytest.mark.parametrize("mode", MODES)
def test_words_before_the_image_share_their_opening_only_and_stay_exact(mode: Mode) -> None:
    vlm = exact(template=WORDS_FIRST)
    asked = Conversation.ask("what", WHITE)
    assert vlm.reader.rendered([asked]) == ["[user]what<image>[assistant]"]
    assert sharing(vlm.reader, vlm.workings.prefixes, asked) == "nothing: every request is read in full"
    assert sharing(vlm.reader, vlm.workings.prefixes, asked.without_images()) == "6 tokens, 0 of them image tokens"
    found = mended(vlm, mode=mode).logits(SAME_SHAPE)
    assert_same(found, naive_logits(vlm, SAME_SHAPE, mode, range(vlm.layers), 1.0))


def looks_ahead(vlm: VLM) -> None:
    """Every token reads the mean of its whole forward call, so that what is before depends on what follows."""
    for block in vlm.anatomy.blocks:
        block.register_forward_pre_hook(lambda module, args: (args[0] + args[0].mean(1, keepdim=True), *args[1:]))


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_looks_ahead_is_read_in_full_and_stays_exact(mode: Mode) -> None:
    """Rows of one length only: here padding, too, would reach the other tokens."""
    vlm = exact()
    looks_ahead(vlm)
    batch = [Conversation.ask(words, noise_image(16, k)) for k, words in enumerate(["what is it", "name a bee"])]
    assert sharing(vlm.reader, vlm.workings.prefixes, batch[0]) == "nothing: every request is read in full"
    found = mended(vlm, mode=mode).logits(batch)
    assert_same(found, naive_logits(vlm, batch, mode, range(vlm.layers), 1.0))


class Pictures(Qwen2VLProcessor):
    """Qwen2-VL's own processor but for videos, which would need torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.image_token_id, self.video_token, self.video_token_id = "<image>", 3, "<unk>", 2
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def tiny_qwen() -> VLM:
    """A random Qwen2-VL, whose positions run in three dimensions over an image: it moves what follows by 2, not 4."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision, image_token_id=3, video_token_id=2, vision_start_token_id=2
    )
    model: Any = Qwen2VLForConditionalGeneration(config).to(torch.float64).eval()
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    return VLM("qwen", model, Pictures(images, tokenizer, TEMPLATE), find_anatomy(model), fingerprint(model))


@pytest.mark.parametrize("mode", MODES)
def test_positions_in_three_dimensions_are_read_in_full_and_stay_exact(mode: Mode) -> None:
    vlm = tiny_qwen()
    asked = Conversation.ask("what", WHITE)
    assert sharing(vlm.reader, vlm.workings.prefixes, asked) == "nothing: every request is read in full"
    assert sharing(vlm.reader, vlm.workings.prefixes, asked.without_images()) == "6 tokens, 0 of them image tokens"
    found = mended(vlm, mode=mode).logits(SAME_SHAPE)
    assert_same(found, naive_logits(vlm, SAME_SHAPE, mode, range(vlm.layers), 1.0))


def test_a_model_that_cannot_go_on_from_a_cache_is_read_in_full_and_stays_exact() -> None:
    vlm = exact()

    def refuse(module: nn.Module, args: object, options: dict[str, Any]) -> None:
        cache = options["past_key_values"]
        if cache is not None and cache.get_seq_length():
            raise ValueError("no cache, please")

    vlm.anatomy.blocks[0].register_forward_pre_hook(refuse, with_kwargs=True)
    assert sharing(vlm.reader, vlm.workings.prefixes, SAME_SHAPE[0]) == "nothing: every request is read in full"
    found = mended(vlm).logits(SAME_SHAPE)
    assert_same(found, naive_logits(vlm, SAME_SHAPE, "increment", range(vlm.layers), 1.0))


def test_a_prefix_that_is_wrong_by_little_is_found_out() -> None:
    """Keys that move by a millionth once a cache is there: below what greedy tokens would show."""
    vlm = exact()
    vlm.anatomy.blocks[2].register_forward_pre_hook(
        lambda module, args, options: (
            (args[0] * (1 + 1e-6 * (options["position_ids"].min() > 0)), *args[1:]),
            options,
        ),
        with_kwargs=True,
    )
    assert sharing(vlm.reader, vlm.workings.prefixes, Conversation.ask("what", WHITE)).startswith("nothing")


def test_rows_of_one_batch_do_not_mix() -> None:
    """Each row beside others, of every length and order, gives what it gives alone."""
    vlm = exact()
    view = mended(vlm)
    alone = torch.cat([view.logits([conversation]) for conversation in SAME_SHAPE])
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 0, 3, 1)):
        assert_same(view.logits([SAME_SHAPE[k] for k in order]), alone[list(order)])


def test_a_row_does_not_feel_what_its_neighbours_show() -> None:
    vlm = exact()
    view = mended(vlm)
    others = [Conversation.ask(c.prompt, noise_image(16, 99)) if c.has_image else c for c in SAME_SHAPE]
    first = view.logits(SAME_SHAPE)
    changed = view.logits([SAME_SHAPE[0], *others[1:]])
    assert_same(changed[0], first[0])
    assert (changed[1] - first[1]).abs().max() > 1e-3


def test_another_content_free_image_has_a_prefix_of_its_own() -> None:
    """After white has warmed the cache, black must not be served white's keys."""
    vlm = exact()
    mended(vlm).logits(SAME_SHAPE)
    found = mended(vlm, corrupt="black").logits(SAME_SHAPE[:1])
    edits = naive_edits(vlm, SAME_SHAPE[0], "increment", range(vlm.layers), image=blank_image(16, 0))
    assert_same(found[0], forward(vlm, SAME_SHAPE[0], edits)[0])


def test_old_prefixes_go_and_come_back_the_same() -> None:
    vlm = exact()
    view = mended(vlm)
    first = view.logits(SAME_SHAPE)
    for k in range(12):
        view.logits([Conversation((Turn("system", f"rule {k}"), *SAME_SHAPE[0].turns))])
    assert len(vlm.workings.prefixes.known) == 8
    assert_same(view.logits(SAME_SHAPE), first)


CAPPED = exact()


@given(cap=st.floats(1e-3, 3.0), alpha=st.floats(-3.0, 3.0), mode=st.sampled_from(MODES))
@settings(max_examples=25, deadline=None)
def test_no_edit_is_longer_than_its_cap(cap: float, alpha: float, mode: Mode) -> None:
    """Relative to the state of the read that the shift is taken from; `sequential` reads it mended so far."""
    edit = ContrastShift((0, 1, 2, 3), WHITE, strength=alpha, mode=mode, cap=cap)
    batch = SAME_SHAPE[:2]
    with torch.inference_mode():
        told = [conversation.without_images() for conversation in batch]
        shifts = row_shifts(CAPPED.reader, CAPPED.workings.prefixes, edit, batch, told)
    for k, conversation in enumerate(batch):
        blank = conversation.with_images(WHITE)
        before = {s.site.layer: -s.vectors[k] for s in shifts} if mode == "sequential" else {}
        states = forward(CAPPED, blank, before)[1]
        ratios = torch.stack([s.vectors[k].norm() / states[s.site.layer].norm() for s in shifts])
        assert (ratios <= cap * (1 + 1e-9)).all()
        if mode != "sequential":
            free = naive_edits(CAPPED, conversation, mode, (0, 1, 2, 3), alpha)
            wanted = torch.stack([free[s.site.layer].norm() / states[s.site.layer].norm() for s in shifts])
            assert_same(ratios, wanted.clamp_max(cap))


def test_a_request_without_image_costs_no_read() -> None:
    vlm = exact()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    view = mended(vlm)
    vlm.anatomy.blocks[0].register_forward_hook(count)
    view.logits(SAME_SHAPE[2:3])
    assert calls == 1


def test_the_part_along_given_directions_is_what_onto_takes_out() -> None:
    """`onto` with a unit vector u: the edit is (shift . u) u."""
    vlm = exact()
    onto = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    edit = ContrastShift((1, 3), WHITE, onto=onto, mode="full")
    with torch.inference_mode():
        told = [SAME_SHAPE[0].without_images()]
        shifts = row_shifts(vlm.reader, Prefixes(), edit, SAME_SHAPE[:1], told)
    free = naive_edits(vlm, SAME_SHAPE[0], "full", (1, 3))
    for shift in shifts:
        unit = onto[shift.site.layer].double()
        assert_same(shift.vectors[0], -(free[shift.site.layer] @ unit) * unit)
    assert [shift.site for shift in shifts] == [Site("language", 1), Site("language", 3)]


@pytest.mark.parametrize("count", [1, 2])
def test_a_shift_from_the_request_as_it_came_reads_its_own_image_and_keeps_nothing_of_it(count: int) -> None:
    """`seen="original"`: a prefix for every user's image would drive out those that all requests share."""
    vlm = exact()
    mended(vlm).logits(SAME_SHAPE)
    kept = list(vlm.workings.prefixes.known)
    batch = SAME_SHAPE[:count]
    with torch.inference_mode():
        told = [conversation.without_images() for conversation in batch]
        edit = ContrastShift((0, 1, 2, 3), WHITE, seen="original")
        shifts = row_shifts(vlm.reader, vlm.workings.prefixes, edit, batch, told)
    for k, conversation in enumerate(batch):
        free = naive_edits(vlm, conversation, "increment", (0, 1, 2, 3), image=conversation.images[0])
        for shift in shifts:
            assert_same(shift.vectors[k], -free[shift.site.layer])
    assert sorted(vlm.workings.prefixes.known) == sorted(kept)
