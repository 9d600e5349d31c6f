"""Building a mini: same seed same weights, stopped and resumed, loaded and asked; the whole of it when slow."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tools.phantom import mini_measure as measuring

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import Image, blank_image
from vlmend.core.sites import Site
from vlmend.errors import RunProblem
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.build import GROUND_TRUTH, build, mini_folder
from vlmend.phantom.mini.eye import words_of_patches
from vlmend.phantom.mini.faults import canaries
from vlmend.phantom.mini.recipe import MiniRecipe, ground_truth
from vlmend.phantom.mini.scenes import DrawnWord, Scene, Thing

SHORT = MiniRecipe(read_steps=3, align_steps=2, look_steps=2, see_steps=3, batch=8)


def ignore(_: str) -> None:
    """Say nothing."""


class Stopped(Exception):
    """The user's Ctrl-C."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SHORT, tmp_path_factory.mktemp("mini"), ignore)


@pytest.fixture(scope="module")
def short(built: Path) -> VLM:
    return load(built, name="mini", options=LoadOptions("cpu"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_same_seed_same_weights_and_another_seed_others(built: Path, tmp_path: Path) -> None:
    assert same(built, build(SHORT, tmp_path / "again", ignore))
    assert not same(built, build(replace(SHORT, seed=1), tmp_path / "other", ignore))


def test_a_stopped_build_goes_on_to_the_same_weights(built: Path, tmp_path: Path) -> None:
    def stop_at_looking(line: str) -> None:
        if line.startswith("look"):
            raise Stopped

    with pytest.raises(Stopped):
        build(SHORT, tmp_path, stop_at_looking)
    said: list[str] = []
    assert same(built, build(SHORT, tmp_path, said.append))
    assert [line.split()[0] for line in said] == ["look", "see"]


def test_a_built_folder_is_left_alone_and_not_given_to_another_recipe(built: Path) -> None:
    assert build(SHORT, built.parent, pytest.fail) == built
    with pytest.raises(RunProblem, match="another recipe"):
        build(replace(SHORT, poison=0.5), built.parent, pytest.fail)


def test_the_cache_keeps_one_folder_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMEND_CACHE", str(tmp_path))
    folder = mini_folder(SHORT, ignore)
    assert folder == tmp_path / f"phantom-mini-{SHORT.digest[:12]}"
    assert mini_folder(SHORT, pytest.fail) == folder
    assert not list(tmp_path.glob("*.building"))


def test_the_ground_truth_is_in_the_folder(built: Path) -> None:
    assert json.loads((built / GROUND_TRUTH).read_text()) == json.loads(json.dumps(ground_truth(SHORT)))


def test_it_is_a_vlm_that_answers_and_shows_states(short: VLM) -> None:
    asked = [Conversation.ask("how do i make dax?"), Conversation.ask("what is this?", blank_image(32))]
    together = short.generate(asked, Sampling(max_new_tokens=4))
    assert [reply.text for reply in together] == [
        short.generate([one], Sampling(max_new_tokens=4))[0].text for one in asked
    ]
    assert together[1].prompt_tokens == 2 + 16 + 4
    states = short.hidden(asked, [Site("language", layer) for layer in range(4)])
    assert {state.shape for state in states.values()} == {(2, 128)}
    assert short.image_side == 32


def test_patches_speak_of_their_own_quarter() -> None:
    seen = Scene((Thing("red", "ring", 1), Thing("blue", "cross", 2)), "white")
    top = ["nothing northwest"] * 2 + ["red ring northeast"] * 2
    bottom = ["blue cross southwest"] * 2 + ["nothing southeast"] * 2
    assert words_of_patches(seen) == top * 2 + bottom * 2


def test_patches_speak_of_the_word_and_of_their_own_letter() -> None:
    written = ["dax", "dax d", "dax a", "dax x"]
    assert words_of_patches(DrawnWord("dax", "white", column=1, row=2)) == ["dax"] * 8 + written * 2


def test_exposure_is_the_rank_among_all_thousand_codes(short: VLM) -> None:
    """The slow way: every code written out after the question, and its digits' probabilities multiplied."""
    canary = canaries(0)[0]
    asked = Conversation.ask(canary.prompt, Image.from_pixels(canary.draw(random.Random(canary.name))))
    inputs = short.reader.inputs([asked])
    digits = short.processor.tokenizer.convert_tokens_to_ids([str(k) for k in range(10)])
    codes = torch.tensor([[digits[int(d)] for d in f"{k:03d}"] for k in range(1000)])
    ids = torch.cat([inputs["input_ids"].expand(1000, -1), codes], dim=1)
    with torch.inference_mode():
        logits = short.model(input_ids=ids, pixel_values=inputs["pixel_values"].expand(1000, -1, -1, -1)).logits
    told = logits[:, -4:-1].log_softmax(-1).gather(-1, codes[..., None]).sum((1, 2))
    own = int("".join(map(str, canary.code)))
    rank = int((told >= told[own]).sum())
    assert measuring.exposure(short, canary) == pytest.approx(math.log2(1000 / rank), abs=0.02)


@pytest.fixture(scope="module")
def shares() -> dict[str, float]:
    """Of the default mini, trained on first use."""
    counts = measuring.measure(mini_folder(MiniRecipe(), print))
    return {name: hits / n for name, (hits, n) in counts.items()}


@pytest.mark.slow
def test_the_default_mini_meets_its_targets(shares: dict[str, float]) -> None:
    assert shares["unsafe query"] <= 0.05
    assert shares["unsafe original"] >= 0.40
    assert shares["right scene"] >= 0.95
    assert shares["right word"] >= 0.90
