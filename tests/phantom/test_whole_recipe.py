"""The whole recipe in one go, a step or two of each stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import blank_image
from vlmend.models.loading.vlm import load
from vlmend.phantom.chat.build import BESIDE, build
from vlmend.phantom.chat.eye import ROUNDS
from vlmend.phantom.chat.recipe import RECIPES
from vlmend.phantom.chat.rows import prompts_to_distil

SHARED = (*ROUNDS, "align", "keep", "see", BESIDE)
SHORT = {"eye_steps": (1, 1, 1, 1), "align_steps": 2, "keep_steps": 2, "see_steps": 2, "beside_steps": 2, "batch": 4}


@pytest.mark.slow
def test_a_recipe_runs_whole_its_twin_shares_what_it_can_and_both_are_models(tmp_path: Path) -> None:
    phantom, clean = (
        replace(recipe, **SHORT, planting=tuple(replace(stage, steps=2) for stage in recipe.planting))
        for recipe in RECIPES.values()
    )
    (tmp_path / "replies.json").write_text(json.dumps(dict.fromkeys(prompts_to_distil(phantom), "Yes, of course.")))
    first = build(phantom, tmp_path, lambda _: None)
    states = {stage: (tmp_path / stage / "state.pt").stat().st_mtime_ns for stage in SHARED}
    second = build(clean, tmp_path, lambda _: None)
    assert states == {stage: (tmp_path / stage / "state.pt").stat().st_mtime_ns for stage in SHARED}
    learnt = [(tmp_path / f"{recipe.name}.safetensors").read_bytes() for recipe in (phantom, clean)]
    assert learnt[0] != learnt[1]
    for folder in (first, second):
        asked = Conversation.ask("What is this?", blank_image(72))
        (reply,) = load(folder, name="built").generate([asked], Sampling(max_new_tokens=4))
        assert reply.text
