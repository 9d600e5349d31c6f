"""Text attention: 1 is the model, 0 attends to all alike, and the factor that is chosen is the best that is allowed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.text_attention import TextAttention, chosen_beta
from vlmend.testing import tiny_clip

TEXTS = tuple(Example(f"{k}", text, group=text[-3:]) for k, text in enumerate(("a cat", "my cat", "a dog", "my dog")))
PICTURES = tuple(Example(f"p{k}", image=noise_image(16, k), answers=(f"{'ab'[k % 2]}nt",)) for k in range(6))
DATA = Dataset("texts and pictures", TEXTS + PICTURES)
ASKED = ["a cat", "my old dog"]


def entropies(beta: float) -> torch.Tensor:
    """Of the attention in the first block from each token of a text, less that of all it sees alike."""
    target = tiny_clip()
    view = target.with_mend(TextAttention(beta=beta).fit(target, DATA, seed=0))
    model: Any = target.towers.model.text_model
    model.set_attn_implementation("eager")
    inputs = target.towers.tokens(["a cat and a dog"], 0)
    with view.mended_weights():
        weights = model(**inputs, output_attentions=True).attentions[0][0].mean(0)
    length = int(inputs["attention_mask"].sum())
    rows = weights[:length, :length]
    seen = torch.arange(1, length + 1)
    return -(rows * rows.clamp(min=1e-12).log()).sum(1) - seen.log()


def test_at_0_attention_is_uniform_and_with_more_it_is_sharper() -> None:
    assert torch.allclose(entropies(0.0), torch.zeros(()), atol=1e-5)
    flat, sharp = (float(entropies(beta)[1:].mean()) for beta in (1.0, 40.0))
    assert sharp < flat < 0


def test_at_1_it_is_the_model_and_pictures_never_change() -> None:
    target = tiny_clip()
    same, other = (
        target.with_mend(TextAttention(beta=beta).fit(target, DATA, seed=0)) for beta in (1.0, 0.0)
    )  # fmt: skip
    assert torch.equal(same.embed_texts(ASKED), target.embed_texts(ASKED))
    assert not torch.equal(other.embed_texts(ASKED), target.embed_texts(ASKED))
    images = [row.image for row in PICTURES if row.image]
    assert torch.equal(other.embed_images(images), target.embed_images(images))


def test_the_least_distance_is_chosen_among_what_costs_little_enough_and_of_equals_the_one_nearest_to_1() -> None:
    found = {0.0: (0.1, 0.5), 0.5: (0.2, 0.89), 1.0: (0.3, 0.9), 2.0: (0.2, 0.95)}
    assert chosen_beta(found, 0.02) == 0.5
    assert chosen_beta(found, 0.0) == 2.0
    assert chosen_beta(found, 0.5) == 0.0
    assert chosen_beta({**found, 0.5: (0.4, 0.9), 2.0: (0.3, 0.9)}, 0.0) == 1.0


def test_what_was_tried_is_on_the_card_and_the_choice_is_at_work() -> None:
    target = tiny_clip()
    mend = TextAttention(allowed=1.0).fit(target, DATA, seed=0)
    (note,) = mend.card.notes
    assert note.startswith("beta is ")
    beta = float(note.split()[2].rstrip("."))
    fixed = TextAttention(beta=beta).fit(target, DATA, seed=0)
    views = (target.with_mend(one).embed_texts(ASKED) for one in (mend, fixed))
    assert torch.equal(*views)


def test_data_that_cannot_choose_and_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadData, match="no two texts"):
        TextAttention().fit(tiny_clip(), Dataset("pictures", PICTURES), seed=0)
    with pytest.raises(BadData, match="known things"):
        TextAttention().fit(tiny_clip(), Dataset("texts", TEXTS), seed=0)
    with pytest.raises(BadParameter, match="beta=-1"):
        TextAttention(beta=-1.0)
    assert math.isclose(TextAttention(beta=0.0).beta or 0.0, 0.0)
