"""What is no checkpoint is told by its kind before a library looks, and what does not fit before a weight is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.duals import built
from tests.models.families import family
from transformers import AutoModelForImageTextToText, LlavaConfig

from vlmend.audit.plan import Plan
from vlmend.audit.preflight import check_audit
from vlmend.errors import ModelProblem, SeveralProblems
from vlmend.models.loading import sizes
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.places import check_place
from vlmend.models.loading.sizes import described_tensors, fitting
from vlmend.models.loading.target import memory_of
from vlmend.models.loading.vlm import config_of, load
from vlmend.models.vlm import VLM

CPU = LoadOptions("cpu")
ORIGINAL = {"architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "openai/clip-vit-large-patch14-336"}


def written(name: str, held: object) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(held))


def as_gguf(folder: Path) -> None:
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def one_below(folder: Path) -> None:
    (folder / "checkpoint-500").mkdir()
    (folder / "checkpoint-500" / "config.json").write_text("{}")


SHARDS = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}


def without_shard(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").touch()
    (folder / "model.safetensors.index.json").write_text(json.dumps(SHARDS))


OTHERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "an adapter": (
        written("adapter_config.json", {"base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}),
        "it is an adapter (PEFT) of llava-hf/llava-1.5-7b-hf", "merge_and_unload",
    ),
    "a pipeline": (written("model_index.json", {"_class_name": "X"}), "a pipeline of diffusers", "docs/models.md"),
    "GGUF": (as_gguf, "it holds GGUF files alone", "api:NAME"),
    "nothing": (lambda folder: None, "no config.json", "Pass a hub name"),
    "one level too high": (one_below, "a folder in it does", "checkpoint-500?"),
    "original LLaVA": (written("config.json", ORIGINAL), "LLaVA's original format", "llava-hf/"),
    "a shard that lacks": (without_shard, "first model-00002-of-00002.safetensors", "Fetch the checkpoint again"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_checkpoint_is_called_by_its_kind(kind: str, tmp_path: Path) -> None:
    make, said, way_out = OTHERS[kind]
    make(tmp_path)
    with pytest.raises(ModelProblem) as problem:
        check_place(tmp_path)
    assert said in problem.value.message
    assert str(tmp_path) in problem.value.message
    assert way_out in problem.value.hint


def test_a_file_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelProblem, match="a model is a folder") as problem:
        check_place(file)
    assert str(tmp_path) in problem.value.hint


def test_a_whole_checkpoint_and_a_hub_name_pass(saved: Path) -> None:
    check_place(saved)
    check_place("llava-hf/llava-1.5-7b-hf")


@pytest.mark.parametrize("kind", ["llava_llama", "llava", "llava_qwen"])
def test_original_llava_is_told_from_its_config_whatever_it_calls_itself(kind: str, saved: Path) -> None:
    config = saved / "config.json"
    config.write_text(json.dumps(ORIGINAL | {"model_type": kind}))
    with pytest.raises(ModelProblem, match="original format"):
        load(saved, options=CPU)


def test_the_command_line_tells_it_with_all_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SeveralProblems, match="an adapter") as problem:
        check_audit(str(tmp_path), Plan(suites=("nothing",)), tmp_path / "run")
    assert len(problem.value.problems) == 2


@pytest.mark.parametrize("quantised", ["awq", "gptq"])
def test_a_quantised_checkpoint_asks_for_its_package_or_the_one_before(quantised: str, saved: Path) -> None:
    config = saved / "config.json"
    held = json.loads(config.read_text()) | {"quantization_config": {"quant_method": quantised, "bits": 4}}
    config.write_text(json.dumps(held))
    with pytest.raises(ModelProblem, match="pip install") as problem:
        load(saved, options=CPU)
    assert "quantised from" in problem.value.hint


# Sizes


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3", "mllama"])
def test_a_config_describes_every_weight(name: str) -> None:
    model = family(name).model
    described = described_tensors(AutoModelForImageTextToText, model.config)
    assert sorted(map(tuple, (one.shape for one in described))) == sorted(tuple(w.shape) for w in model.parameters())


def test_a_config_of_a_dual_encoder_does_so_too() -> None:
    model, _ = built("clip")
    assert len(described_tensors(type(model), model.config)) == len(list(model.parameters()))


def test_a_config_that_describes_more_than_the_files_hold_is_what_counts(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A llava-1.5-7b beside the weights of a toy: 7.06e9 numbers, in float32 four bytes each."""
    monkeypatch.setattr(sizes, "free_bytes", lambda device: 8_000_000_000)
    with pytest.raises(ModelProblem, match=r"does not fit: its weights need 28\.3 GB on cpu") as problem:
        fitting(saved, AutoModelForImageTextToText, LlavaConfig(), CPU)
    assert "--quantize 4bit needs" in problem.value.hint


def test_what_is_needed_is_told_before_loading_and_is_what_the_weights_take(saved: Path, tiny: VLM) -> None:
    memory = memory_of(str(saved), CPU)
    assert memory is not None
    assert memory.needed == sum(weight.numel() for weight in tiny.model.parameters()) * 4
    assert str(memory).startswith("Weights ")
    assert memory_of("api:any") is None


def test_weights_that_no_part_takes_are_said_and_noted(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(saved / "model.safetensors") | {"extra.head.weight": torch.zeros(3, 3)}
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        loaded = load(saved, options=CPU)
    note = "1 weights in its files have no place in the model, first extra.head.weight"
    assert note in caplog.text
    assert note in loaded.anatomy.notes


def test_a_clean_checkpoint_says_nothing(saved: Path, tiny: VLM, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load(saved, options=CPU, config=config_of(saved, CPU)).anatomy.notes == tiny.anatomy.notes
    assert not caplog.records


@pytest.fixture
def saved(tiny: VLM, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder
