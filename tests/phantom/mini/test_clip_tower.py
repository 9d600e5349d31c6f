"""A mini behind phantom-clip's tower: whose weights they are, what learns, what patches speak of, and mends of it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Resampling

from vlmend.core.conversation import Conversation
from vlmend.core.images import Image
from vlmend.core.weight_edits import LoadAdapter
from vlmend.methods.robustness.fare import Fare
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.clip.load import phantom_clip
from vlmend.phantom.mini.build import build
from vlmend.phantom.mini.eye import words_of_patches
from vlmend.phantom.mini.parts import new_parts
from vlmend.phantom.mini.recipe import MiniRecipe
from vlmend.phantom.mini.scenes import DrawnWord, Scene, Thing, scene
from vlmend.phantom.pixels import to_pixels
from vlmend.pictures.galleries import some_objects
from vlmend.training.towers import for_vlm

SHORT = MiniRecipe(read_steps=1, align_steps=1, look_steps=1, see_steps=1, batch=2, look_batch=2, clip_tower=True)
SCENE = Scene((Thing("red", "ring", 1), Thing("blue", "cross", 2)), "white")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    folder = build(SHORT, tmp_path_factory.mktemp("mini"), lambda line: None)
    return load(folder, name="mini-behind-clip", options=LoadOptions("cpu"))


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    return load_dual(phantom_clip(), name="phantom-clip")


def test_its_tower_is_that_of_phantom_clip_after_the_training_too(built: VLM, clip: DualEncoder) -> None:
    tower: Any = clip.towers.vision
    theirs = tower.state_dict()
    ours = built.model.model.vision_tower.state_dict()
    names = {name.removeprefix("vision_model."): value for name, value in ours.items()}
    assert names.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in names.items())


def test_its_projector_learns_and_pictures_are_as_large_as_the_tower_reads_them(built: VLM) -> None:
    projector = built.model.model.multi_modal_projector
    fresh = new_parts(SHORT.seed, clip_tower=True).model.model.multi_modal_projector
    assert not torch.equal(projector.linear_1.weight, fresh.linear_1.weight)
    assert built.image_side == 72
    asked = Conversation.ask("what is in the picture?", Image.from_pixels(SCENE.draw(random.Random(0))))
    assert int((built.reader.inputs([asked])["input_ids"] == built.anatomy.image_token_id).sum()) == 36


def test_what_the_eye_learns_on_is_what_the_processor_makes_of_a_scene(built: VLM) -> None:
    pictures = [scene("train", random.Random(k)).draw(random.Random(k)) for k in range(4)]
    theirs = built.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    ours = to_pixels([picture.resize((72, 72), Resampling.BICUBIC) for picture in pictures])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


def test_patches_of_a_finer_grid_speak_of_the_same_quarters_and_letters() -> None:
    top = ["nothing northwest"] * 3 + ["red ring northeast"] * 3
    bottom = ["blue cross southwest"] * 3 + ["nothing southeast"] * 3
    assert words_of_patches(SCENE, 6) == top * 3 + bottom * 3
    word = DrawnWord("dax", "white", column=1, row=2)
    four, eight = words_of_patches(word), words_of_patches(word, 8)
    assert eight == [four[4 * (row // 2) + column // 2] for row in range(8) for column in range(8)]


def test_a_mend_of_the_tower_goes_along_and_moves_answers_about_pictures_alone(built: VLM, clip: DualEncoder) -> None:
    method = Fare(steps=1, batch=2, inner=1, train="adapters", rate=1e-1)
    fitted = method.fit(clip, some_objects(), seed=0)
    edits = [replace(edit, up=edit.up + 0.05) for edit in fitted.edits if isinstance(edit, LoadAdapter)]
    mended = built.with_mend(for_vlm(replace(fitted, edits=tuple(edits)), clip, built))
    asked = [Conversation.ask("hello", Image.from_pixels(SCENE.draw(random.Random(0)))), Conversation.ask("hello")]
    before, after = built.logits(asked), mended.logits(asked)
    assert (before[0] - after[0]).abs().max() > 1e-4
    assert torch.equal(before[1], after[1])


def test_the_same_seed_gives_the_same_weights(built: VLM, tmp_path: Path) -> None:
    again = load(build(SHORT, tmp_path / "again", lambda line: None), name="again", options=LoadOptions("cpu"))
    assert again.model_digest == built.model_digest
