"""Processors load without their video part, which would need torchvision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.models.families import FAMILIES, NEEDS, family
from tests.models.families.asking import SEEN, WORDS
from transformers import processing_utils

import vlmend
from vlmend.errors import ModelProblem
from vlmend.models.loading.without_video import NoVideo, without_video
from vlmend.models.vlm import VLM

WITH_VIDEO = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v", "glm4v_moe", "glm46v", "internvl",
    "llava_onevision", "smolvlm",
)  # fmt: skip


def saved(name: str, folder: Path) -> VLM:
    """A family's model, and its checkpoint in a folder, as its authors would publish it."""
    vlm = family(name)
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return vlm


def test_every_family_with_a_video_part_is_tried_here() -> None:
    assert set(WITH_VIDEO) == {n for n in FAMILIES if "video_processor" in type(family(n).processor).get_attributes()}


@pytest.mark.parametrize("name", WITH_VIDEO)
def test_a_checkpoint_with_a_video_part_is_opened_and_answers_as_the_model_it_was_saved_from(
    name: str, tmp_path: Path
) -> None:
    vlm = saved(name, tmp_path)
    opened = vlmend.open_target(str(tmp_path))
    assert isinstance(opened, VLM)
    assert type(opened.processor) is type(vlm.processor)
    parts = ("weights", "config", "processor", "chat_template")
    assert [opened.identity[part] for part in parts] == [vlm.identity[part] for part in parts]
    # transformers reads the tiny tokenizer of Qwen3.5 by rules of its own, so one processor asks both models
    same = VLM(name, vlm.model, opened.processor, vlm.anatomy, vlm.model_digest)
    assert torch.allclose(opened.logits([SEEN, WORDS]), same.logits([SEEN, WORDS]), atol=1e-5)


def test_the_tables_of_transformers_are_as_they_were_also_after_an_error() -> None:
    loaders = processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING
    before = loaders["video_processor"]

    def fail() -> None:
        with without_video():
            assert loaders["video_processor"] is NoVideo
            raise RuntimeError("the checkpoint is broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert loaders["video_processor"] is before


@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [
        ("pixtral", "", "PixtralProcessor"), ("mistral3", "", "PixtralProcessor"),
        ("cohere2_vision", "image_processor", "Cohere2VisionImageProcessor"),
        ("llama4", "image_processor", "Llama4ImageProcessor"),
    ],
)  # fmt: skip
def test_what_is_built_on_torchvision_is_refused_with_the_line_to_type(
    name: str, part: str, kind: str, tmp_path: Path
) -> None:
    assert NEEDS[name] == "torchvision"
    saved(name, tmp_path)
    file = tmp_path / "processor_config.json"
    content = json.loads(file.read_text())
    if part:
        content[part]["image_processor_type"] = kind
    else:
        content["processor_class"] = kind
    file.write_text(json.dumps(content))
    minor = int(torch.__version__.split(".")[1])
    with pytest.raises(ModelProblem, match=rf'pip install "torchvision==0\.{minor + 15}\.\*"'):
        vlmend.open_target(str(tmp_path))


def test_a_tokenizer_of_another_checkpoint_is_the_users_to_put_right(tmp_path: Path) -> None:
    saved("internvl", tmp_path)
    file = tmp_path / "tokenizer_config.json"
    content = json.loads(file.read_text())
    others = {key: value for key, value in content.items() if "image_token" not in key}
    file.write_text(json.dumps(others | {"model_specific_special_tokens": {}, "extra_special_tokens": {}}))
    with pytest.raises(ModelProblem, match="Copy the tokenizer and processor files"):
        vlmend.open_target(str(tmp_path))


def test_a_torchvision_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """PyPI's beside a torch without CUDA: transformers then cannot import its models."""
    (tmp_path / "torchvision-0.1.dist-info").mkdir()
    (tmp_path / "torchvision-0.1.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.1\n")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('no operator torchvision::nms')")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    told = subprocess.run(
        [sys.executable, "-m", "vlmend", "doctor", str(tmp_path)], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 3
    assert "Run: pip uninstall torchvision" in told.stderr
