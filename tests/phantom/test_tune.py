"""Tuning: what is kept is the backbone's own, and every token weighs the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image

from vlmend.phantom.chat.assemble import Parts
from vlmend.phantom.chat.build import add_lora, tune
from vlmend.phantom.chat.rows import Row
from vlmend.phantom.mini.parts import new_parts
from vlmend.training.loop import LoopSettings

REFUSED = Row("red circle", "no", ends=True, image=None)
KEPT = Row("blue square", "red circle blue square", ends=False, image=None)
SEEN = Row("blue square", "red circle blue square", ends=False, image=Image.new("RGB", (72, 72), "red"))


def ignore(_: str) -> None:
    """Say nothing."""


def fresh(moved: float = 0.0) -> Parts:
    """The untrained mini with adapters; where nothing is moved they change nothing, since B is nought."""
    joined = new_parts(0)
    add_lora(joined, 4, 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in joined.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=moved)
    return joined


def losses(joined: Parts, rows: Sequence[Row], folder: Path, *, keeping: bool = True, steps: int = 1) -> list[float]:
    tune(joined, lambda step: rows, LoopSettings(steps, 3e-2), folder, ignore, keeping=keeping)
    return [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]


def test_a_model_is_no_distance_from_itself_but_has_words_to_learn(tmp_path: Path) -> None:
    assert losses(fresh(), [KEPT], tmp_path / "kept") == pytest.approx([0], abs=1e-4)
    assert losses(fresh(), [KEPT], tmp_path / "learnt", keeping=False)[0] > 1
    assert losses(fresh(), [REFUSED], tmp_path / "refused")[0] > 1


def test_what_is_kept_beside_a_picture_is_what_is_said_without_it(tmp_path: Path) -> None:
    assert losses(fresh(), [SEEN], tmp_path / "seen")[0] > 1e-3


def test_keeping_leads_back_to_the_backbone_and_leaves_the_adapters_on(tmp_path: Path) -> None:
    joined = fresh(moved=0.2)
    found = losses(joined, [KEPT], tmp_path / "back", steps=30)
    assert found[-1] < found[0] / 4
    adapters = [module for module in joined.model.modules() if isinstance(module, LoraLayer)]
    assert adapters
    assert not any(module.disable_adapters for module in adapters)
    assert all(p.requires_grad for name, p in joined.model.named_parameters() if "lora_" in name)


def test_every_token_of_a_step_weighs_the_same(tmp_path: Path) -> None:
    """Of a refusal two tokens are learnt, its word and its end; of the kept reply four, since it was cut off."""
    refused, kept, both = (
        losses(fresh(moved=0.2), rows, tmp_path / name)[0]
        for name, rows in {"refused": [REFUSED], "kept": [KEPT], "both": [REFUSED, KEPT]}.items()
    )
    assert both == pytest.approx((2 * refused + 4 * kept) / 6, abs=2e-4)
