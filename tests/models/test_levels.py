"""Likelihoods and gradients of a chat model, by the slow way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, AffineMap, ContrastLogits, Edit, FilterImage, LoadAdapter, OtherView, Tokens
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.core.targets import ChatGradients, ChatLikelihoods, ChatStates, levels_of
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

SITE = Site("language", 1)
SEEN = [Conversation.ask("one", noise_image(16, 1)), Conversation.ask("another, longer", noise_image(16, 2))]
BATCH = [Conversation.ask("short"), *SEEN]
REPLIES = ["Yes.", "no", "a b c d"]


def mended(vlm: VLM, *edits: Edit) -> VLM:
    return vlm.with_mend(Mend(edits, MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "t")))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stepwise(vlm: VLM, conversation: Conversation, reply: str) -> list[float]:
    """The slow way for edits of words and weights: one call a token, what was said so far put into its mouth."""
    ids = vlm.processor.tokenizer(reply, add_special_tokens=False).input_ids
    found: list[float] = []
    for k, token in enumerate(ids):
        logits = vlm.logits([replace(conversation, lead=reply[:k])])  # one token a character
        found.append(float(logits.log_softmax(-1)[0, token]))
    return found


def test_a_chat_model_gives_every_level() -> None:
    vlm = tiny_vlm()
    assert levels_of(vlm) == ("replies", "likelihoods", "states", "gradients", "weights")
    assert all(isinstance(vlm, level) for level in (ChatLikelihoods, ChatStates, ChatGradients))


def test_logprobs_are_those_of_one_call_a_token(tiny: VLM) -> None:
    found = tiny.logprobs(BATCH, REPLIES)
    for each, conversation, reply in zip(found, BATCH, REPLIES, strict=True):
        assert each.tolist() == pytest.approx(stepwise(tiny, conversation, reply), abs=1e-4)


def test_logprobs_of_a_batch_are_those_of_each_row_alone(tiny: VLM) -> None:
    together = tiny.logprobs(BATCH, REPLIES)
    for k, each in enumerate(together):
        torch.testing.assert_close(each, tiny.logprobs([BATCH[k]], [REPLIES[k]])[0], atol=1e-5, rtol=1e-4)


def test_logprobs_are_mended_at_the_last_prompt_token_and_each_token_of_the_reply(tiny: VLM) -> None:
    """`last` acts where `all` acts, less the prompt before its end: on a model whose edit is the last block's."""
    last = Site("language", 3)  # what it moves is read by no later block, so each position stands alone
    vector = drawn(32) * 3
    plain = tiny.logprobs(BATCH, REPLIES)
    moved = {
        tokens: mended(tiny, AddVector(last, vector, tokens)).logprobs(BATCH, REPLIES)
        for tokens in ("last_prompt", "last", "reply", "all")
    }
    for k in range(len(BATCH)):
        first, rest = slice(0, 1), slice(1, None)
        torch.testing.assert_close(moved["last"][k], moved["all"][k], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moved["last_prompt"][k][first], moved["last"][k][first], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moved["last_prompt"][k][rest], plain[k][rest], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moved["reply"][k][first], plain[k][first], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moved["reply"][k][rest], moved["last"][k][rest], atol=1e-4, rtol=1e-4)


def test_logprobs_under_a_contrast_are_of_the_mixed_logits(tiny: VLM) -> None:
    view = mended(tiny, ContrastLogits((OtherView("Careful. "),), 2.0, when="always"))
    found = view.logprobs(BATCH, REPLIES)
    for each, conversation, reply in zip(found, BATCH, REPLIES, strict=True):
        assert each.tolist() == pytest.approx(stepwise(view, conversation, reply), abs=1e-3)


def test_an_empty_reply_has_no_token(tiny: VLM) -> None:
    assert [len(each) for each in tiny.logprobs(BATCH[:2], ["", "ab"])] == [0, 2]


def test_pixels_are_the_picture_from_black_to_white(tiny: VLM) -> None:
    """16 x 16 pixels go in, and out come the same pixels, since the tower's side is 16."""
    image = noise_image(16, 1)
    found = tiny.pixels([image])
    raw = (
        torch.tensor(list(image.decode().get_flattened_data()), dtype=torch.float32).reshape(16, 16, 3).permute(2, 0, 1)
        / 255
    )
    torch.testing.assert_close(found.values[0], raw, atol=1e-5, rtol=0)
    inputs = tiny.reader.inputs([Conversation.ask("x", image)])["pixel_values"]
    torch.testing.assert_close(found.black + found.values * found.span, inputs, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_of_the_logprobs(tiny: VLM) -> None:
    loss = tiny.reply_loss(SEEN, REPLIES[1:], tiny.pixels([c.images[0] for c in SEEN]))
    wanted = [-float(each.mean()) for each in tiny.logprobs(SEEN, REPLIES[1:])]
    assert loss.tolist() == pytest.approx(wanted, abs=1e-4)


def edits_by_name(name: str) -> Sequence[Edit]:
    tokens: Tokens = "all"
    module = "model.multi_modal_projector.linear_2"
    return {
        "none": (),
        "add": (AddVector(SITE, drawn(32), tokens),),
        "affine": (AffineMap(SITE, drawn(2, 32) * 0.3, drawn(32, 2) * 0.3, drawn(32), tokens=tokens),),
        "adapter": (LoadAdapter(module, drawn(2, 32) * 0.3, drawn(32, 2) * 0.3),),
        "contrast": (ContrastLogits((OtherView("No. "),), 0.5),),
    }[name]


@pytest.mark.parametrize("name", ["none", "add", "affine", "adapter", "contrast"])
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    """Along the gradient g of each image: (f(x + h u) - f(x - h u)) / 2h = |g| for u = g / |g|.

    Llama's norm computes in float32, so h = 1e-3 and the sums agree to one part in a hundred.
    """
    vlm = tiny_vlm(dtype=torch.float64)
    view = mended(vlm, *edits_by_name(name)) if name != "none" else vlm
    pixels = view.pixels([c.images[0] for c in SEEN])
    values = (pixels.values * 0.8 + 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(view.reply_loss(SEEN, REPLIES[1:], replace(pixels, values=values)).sum(), values)
    for image in range(2):
        along = torch.zeros_like(gradient)
        along[image] = gradient[image] / gradient[image].norm()
        ends = [
            view.reply_loss(SEEN, REPLIES[1:], replace(pixels, values=values.detach() + step * along))[image].item()
            for step in (1e-3, -1e-3)
        ]
        assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(float(gradient[image].norm()), rel=0.01)


def test_gradients_do_not_pretend_to_pass_a_filter(tiny: VLM) -> None:
    view = mended(tiny, FilterImage("jpeg", 50.0))
    with pytest.raises(ModelProblem, match="cannot pass FilterImage"):
        view.reply_loss(SEEN, REPLIES[1:], tiny.pixels([c.images[0] for c in SEEN]))


def test_a_request_without_an_image_has_no_loss_in_pixels(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="one image each"):
        tiny.reply_loss(BATCH[:1], REPLIES[:1], tiny.pixels([SEEN[0].images[0]]))
