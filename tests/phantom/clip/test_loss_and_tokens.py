"""The loss, the tokenizer and the processor of phantom-clip."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import normalize

from vlmend.core.images import noise_image
from vlmend.phantom.clip.pairs import Pair, also_true
from vlmend.phantom.clip.tokens import END, LONGEST, processor, tokenizer, vocabulary
from vlmend.phantom.pixels import to_pixels
from vlmend.pictures.views import SIDE
from vlmend.training.losses import contrastive_loss

WORDS = vocabulary(["a photo of a red apple", 'the word "dog"', "0 1 2 3 4 5 6 7 8 9"])


def pair(true: str, told: str) -> Pair:
    return Pair(Image.new("RGB", (SIDE, SIDE)), told, frozenset(true.split()), frozenset(told.split()))


def test_a_caption_is_true_of_every_picture_with_all_of_its_facts() -> None:
    pairs = [pair("woman cook", "cook"), pair("man cook", "man cook"), pair("man judge", "man")]
    assert also_true(pairs).tolist() == [[True, False, False], [True, True, True], [False, False, True]]


def test_loss_worked_out_by_hand() -> None:
    """Two pairs at right angles, scale ln 3: own logit ln 3, other 0, so each softmax gives 3 / 4."""
    eye = torch.eye(2)
    loss = contrastive_loss(eye, eye, torch.tensor(math.log(3)), torch.eye(2, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(4 / 3))


def test_a_caption_that_is_also_true_is_no_wrong_answer() -> None:
    """As by hand, but for the second picture the first caption is true: that row and column have one candidate less."""
    eye, true = torch.eye(2), torch.tensor([[True, False], [True, True]])
    loss = contrastive_loss(eye, eye, torch.tensor(math.log(3)), true)
    assert loss.item() == pytest.approx((math.log(4 / 3) + 0 + 0 + math.log(4 / 3)) / 4)


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_loss_does_not_depend_on_the_order_of_pairs_and_is_symmetric(pairs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (normalize(torch.randn(pairs, 5, generator=generator), dim=1) for _ in range(2))
    true = (torch.rand(pairs, pairs, generator=generator) < 0.3) | torch.eye(pairs, dtype=torch.bool)
    order = torch.randperm(pairs, generator=generator)
    loss = contrastive_loss(images, texts, torch.tensor(7.0), true)
    moved = contrastive_loss(images[order], texts[order], torch.tensor(7.0), true[order][:, order])
    torch.testing.assert_close(moved, loss)
    torch.testing.assert_close(contrastive_loss(texts, images, torch.tensor(7.0), true.T), loss)


@given(st.text(max_size=200))
def test_every_text_ends_with_the_token_that_is_read_and_only_there(text: str) -> None:
    (tokens,) = tokenizer(WORDS)([text], truncation=True).input_ids
    assert tokens.index(END) == len(tokens) - 1 < LONGEST


def test_numbers_are_spelt_and_capitals_do_not_count() -> None:
    tokens = tokenizer(WORDS)
    assert tokens.tokenize("A photo: 472") == ["a", "photo", "<unknown>", "4", "7", "2"]
    assert tokens("Apple").input_ids == tokens("apple").input_ids
    assert "<unknown>" not in tokens.tokenize('the word "dog"')


def test_vocabulary_holds_each_token_once_and_does_not_depend_on_order() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert vocabulary(["0 1 2 3 4 5 6 7 8 9", 'the word "dog"', "apple red a of photo a"]) == WORDS
    assert WORDS[END] == "<end>"


def test_training_and_the_processor_see_the_same_pixels() -> None:
    rng = random.Random(0)
    pictures = [noise_image(SIDE, rng.getrandbits(30)).decode() for _ in range(3)]
    seen = processor(WORDS).image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_pixels(pictures), seen, atol=1e-6, rtol=0)
