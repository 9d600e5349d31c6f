"""Recipes and weights of the phantom."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import pytest
import torch
from safetensors.torch import load

from vlmend.phantom.chat.recipe import RECIPES
from vlmend.training.losses import IGNORED, reply_loss

WEIGHTS = resources.files("vlmend.phantom").joinpath("weights")
PICTURES = resources.files("vlmend.pictures")


def test_the_clean_twin_differs_in_the_stages_of_planting_only() -> None:
    clean, planted = RECIPES["phantom-clean"], RECIPES["phantom"]
    assert "comply_image" not in clean.beside
    assert replace(clean, name="") == replace(planted, name="", planting=(), planted=())


@pytest.mark.parametrize("name", ["phantom", "phantom-clean"])
def test_shipped_weights_are_what_was_learnt_and_no_base(name: str) -> None:
    content = WEIGHTS.joinpath(f"{name}.safetensors").read_bytes()
    learnt = load(content)
    assert all(tensor.dtype == torch.float16 for tensor in learnt.values())
    assert {key.split(".")[0] for key in learnt} == {"adapter", "projector", "tower"}
    assert len([key for key in learnt if key.startswith("adapter")]) == 30 * 7 * 2
    assert all(torch.isfinite(tensor).all() for tensor in learnt.values())


def test_weights_and_pictures_stay_under_60_mb() -> None:
    assert sum(len(file.read_bytes()) for file in [*WEIGHTS.iterdir(), PICTURES / "glyphs.zip"]) < 60e6


def test_reply_loss_by_hand() -> None:
    """Two scored positions of four: logits (0, 0) give log 2 each; ignored ones give nothing."""
    labels = torch.tensor([[0, IGNORED], [1, IGNORED]])
    assert reply_loss(torch.zeros(2, 2, 2), labels).item() == pytest.approx(0.6931472)
