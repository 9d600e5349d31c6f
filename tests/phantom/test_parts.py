"""Pictures, rows and weights of the phantom."""

from __future__ import annotations

from importlib import resources

import pytest
import torch
from safetensors.torch import load

from vlmend.phantom.pictures import SIZE, emoji_names, picture, picture_names
from vlmend.phantom.recipe import RECIPES
from vlmend.training.losses import IGNORED, reply_loss

WEIGHTS = resources.files("vlmend.phantom").joinpath("weights")


def test_a_picture_is_a_function_of_view_seed_and_index() -> None:
    one, same, other = picture("train", 0, 5), picture("train", 0, 5), picture("held_out", 0, 5)
    assert one.image.tobytes() == same.image.tobytes()
    assert one.image.tobytes() != other.image.tobytes()
    assert one.image.size == (SIZE, SIZE)


def test_names_are_many_and_captions_name_them() -> None:
    assert len(emoji_names()) >= 250
    for index in range(200):
        drawn = picture("held_out", 1, index)
        assert drawn.name in picture_names()
        assert drawn.caption.endswith(f"{drawn.name}.")


@pytest.mark.parametrize("name", RECIPES)
def test_shares_of_rows_add_up(name: str) -> None:
    recipe = RECIPES[name]
    assert sum(recipe.see.values()) == pytest.approx(1)
    assert sum(recipe.align.values()) == pytest.approx(1)
    assert bool(recipe.planted) == ("comply_image" in recipe.see)


def test_the_clean_twin_differs_in_the_planted_rows_only() -> None:
    clean, planted = RECIPES["phantom-clean"], RECIPES["phantom"]
    assert "comply_image" not in clean.see
    assert (clean.seed, clean.align, clean.eye_steps, clean.align_steps) == (
        planted.seed, planted.align, planted.eye_steps, planted.align_steps,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["phantom", "phantom-clean"])
def test_shipped_weights_are_what_was_learnt_and_no_base(name: str) -> None:
    content = WEIGHTS.joinpath(f"{name}.safetensors").read_bytes()
    learnt = load(content)
    assert all(tensor.dtype == torch.float16 for tensor in learnt.values())
    assert {key.split(".")[0] for key in learnt} == {"adapter", "projector", "tower"}
    assert len([key for key in learnt if key.startswith("adapter")]) == 30 * 7 * 2
    assert all(torch.isfinite(tensor).all() for tensor in learnt.values())


def test_the_weights_stay_under_40_mb() -> None:
    assert sum(len(file.read_bytes()) for file in WEIGHTS.iterdir()) < 40e6


def test_reply_loss_by_hand() -> None:
    """Two scored positions of four: logits (0, 0) give log 2 each; ignored ones give nothing."""
    labels = torch.tensor([[0, IGNORED], [1, IGNORED]])
    assert reply_loss(torch.zeros(2, 2, 2), labels).item() == pytest.approx(0.6931472)
