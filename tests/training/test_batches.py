"""Batches: labels and padding by hand, preferences, pairs, and losses of them."""

from __future__ import annotations

import math

import torch

from vlmend.core.conversation import Conversation
from vlmend.core.images import noise_image
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_clip
from vlmend.training.batches import Pair, Preference, Row, chosen, pair_batch, preference_batch, reply_batch
from vlmend.training.losses import contrastive_loss, reply_logprobs

IMAGE = noise_image(16, 1)


def test_labels_and_padding_worked_out_by_hand(tiny: VLM) -> None:
    """Ids: `a` 69, `b` 70, `c` 71, end 1, padding 0. Prompts go left, replies right; a cut reply gets no end."""
    rows = [Row(Conversation.ask("hi", IMAGE), "ab", True), Row(Conversation.ask("hello", IMAGE), "c", False)]
    inputs, labels = reply_batch(tiny.reader, rows)
    assert labels.tolist() == [[69, 70, 1], [71, -100, -100]]
    assert inputs["input_ids"][:, -3:].tolist() == [[69, 70, 1], [71, 0, 0]]
    assert inputs["attention_mask"][:, -3:].tolist() == [[1, 1, 1], [1, 0, 0]]
    prompts = tiny.reader.inputs([row.asked for row in rows])
    assert torch.equal(inputs["input_ids"][:, :-3], prompts["input_ids"])
    assert torch.equal(inputs["attention_mask"][:, :-3], prompts["attention_mask"])


def test_preferences_are_every_better_reply_and_then_every_worse_one(tiny: VLM) -> None:
    asked = [Conversation.ask("hi", IMAGE), Conversation.ask("hello", IMAGE)]
    rows = [Preference(asked[0], "a", "b"), Preference(asked[1], "c", "ab")]
    inputs, labels = preference_batch(tiny.reader, rows)
    assert labels.tolist() == [[69, 1, -100], [71, 1, -100], [70, 1, -100], [69, 70, 1]]
    assert torch.equal(inputs["input_ids"][:2, :-3], inputs["input_ids"][2:, :-3])


def test_the_logprob_of_a_reply_is_the_sum_over_its_tokens() -> None:
    """Two tokens of a uniform vocabulary of 4, then one: -2 ln 4 and -ln 4."""
    labels = torch.tensor([[0, 3], [1, -100]])
    found = reply_logprobs(torch.zeros(2, 2, 4), labels)
    torch.testing.assert_close(found, torch.tensor([-2 * math.log(4), -math.log(4)]))


def test_pairs_are_embedded_row_by_row_and_learn_from_one_another() -> None:
    target = tiny_clip()
    pairs = [Pair(noise_image(16, k), text) for k, text in enumerate(["a cat", "two dogs in the rain", "x"])]
    pixels, texts = pair_batch(target, pairs)
    images, words = (
        torch.nn.functional.normalize(features, dim=1)
        for features in (target.image_features(pixels), target.text_features(texts))
    )
    torch.testing.assert_close(words, target.embed_texts(texts), atol=1e-5, rtol=0)
    logits = target.logits([pair.image for pair in pairs], texts)
    by_hand = -(logits.log_softmax(0).diag().mean() + logits.log_softmax(1).diag().mean()) / 2
    torch.testing.assert_close(contrastive_loss(images, words, target.towers.scale), by_hand, atol=1e-4, rtol=0)


def test_the_key_alone_decides_which_rows_are_chosen() -> None:
    rows = list(range(10))
    assert chosen(rows, 4, "a:0:1") == chosen(rows, 4, "a:0:1") != chosen(rows, 4, "a:0:2")
    assert sorted(chosen(rows, 20, "a")) == rows
