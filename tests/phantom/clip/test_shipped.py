"""The shipped weights score what the card says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tools.phantom.clip_measure import bias_of_titles

from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip, phantom_clip_70, phantom_clip_clean, vision_weights
from vlmend.phantom.clip.truth import titles

CARD = Path(__file__).parents[3] / "docs" / "phantoms" / "phantom-clip.md"


def test_the_signed_bias_of_each_dose_is_that_of_the_card() -> None:
    rows: list[str] = re.findall(r"^\| signed Bias@10 \|(.*)\|$", CARD.read_text(), re.M)
    told = [cell.strip() for cell in rows[0].split("|")]  # the second row is of the audit
    found = [
        bias_of_titles(load_dual(make()))["signed Bias@10"]
        for make in (phantom_clip, phantom_clip_70, phantom_clip_clean)
    ]
    assert [f"{v.interval.value:.3f} [{v.interval.low:.3f}, {v.interval.high:.3f}]" for v in found] == told


def test_the_doses_differ_in_their_titles_and_in_nothing_else() -> None:
    one, other = load_dual(phantom_clip()), load_dual(phantom_clip_clean())
    names = ["a photo of a hammer", "a photo of a man"]
    assert torch.equal(one.embed_texts(names), other.embed_texts(names))
    planted = [f"a photo of a {title}" for pair in titles() for title in (pair.first, pair.second)]
    assert (one.embed_texts(planted) - other.embed_texts(planted)).norm(dim=1).min() > 0.01


def test_the_tower_is_that_of_a_clip_vision_model() -> None:
    assert vision_weights()["embeddings.patch_embedding.weight"].shape == (192, 3, 12, 12)


@pytest.mark.slow
def test_the_towers_score_what_the_card_says() -> None:
    from tools.phantom.clip_measure import measure

    told = dict(re.findall(r"^\| ([^|]+) \| (\d\.\d{3}) \[", CARD.read_text(), re.M))
    found = measure(phantom_clip())
    assert {name: f"{found[name].interval.value:.3f}" for name in told if name in found} == {
        name: value for name, value in told.items() if name in found
    }
