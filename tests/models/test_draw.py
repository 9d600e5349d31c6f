"""Text-to-image pipelines: any folder of diffusers opens as kind `draw`, and what cannot is told why."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.phantom.draw.tiny import TINY

from vlmend.audit.plan import default_suites
from vlmend.audit.preflight import check_names_of
from vlmend.core.mend import Mend, MendCard
from vlmend.core.targets import DrawTarget, Kind, Target, check_access, levels_of
from vlmend.errors import BadParameter, MissingExtra, ModelProblem, NeedsAccess, UsageError
from vlmend.models.checkup.outside import checkup_draw
from vlmend.models.draw.pipeline import DenoisingPipeline, DrawPipeline, Settings
from vlmend.models.loading.draw import load_draw
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import kind_of, memory_of, open_target

pytest.importorskip("diffusers", reason="pip install 'vlmend[generate]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vlmend.phantom.draw.build import build

    return build(TINY, tmp_path_factory.mktemp("draw"), lambda line: None)


@pytest.fixture(scope="module")
def drawing(folder: Path) -> DrawPipeline:
    return load_draw(folder, name="tiny")


def test_a_pipelines_folder_opens_as_kind_draw(folder: Path) -> None:
    kinds: list[Kind] = []
    target: Target = open_target(str(folder), check=kinds.append)
    assert kinds == ["draw"]
    assert isinstance(target, DrawTarget)
    assert levels_of(target) == ("pictures", "states")
    assert (kind_of(str(folder)), memory_of(str(folder))) == ("draw", None)
    check_names_of(str(folder))


def test_a_picture_follows_prompt_and_seed_and_not_what_is_drawn_beside_it(drawing: DrawPipeline) -> None:
    first, second, third = drawing.draw(["a cat", "a cat", "a dog"], [1, 2, 1])
    assert first is not None
    assert first.decode().size == (32, 32)
    assert drawing.draw(["a cat"], [1]) == [first]
    assert len({picture.digest for picture in (first, second, third) if picture}) == 3


def test_more_pictures_than_one_batch_come_in_order(drawing: DrawPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = drawing.draw(["a cat", "a dog", "a cat"], [1, 2, 3])
    monkeypatch.setattr("vlmend.models.draw.pipeline.BATCH", 2)
    assert drawing.draw(["a cat", "a dog", "a cat"], [1, 2, 3]) == at_once


def test_the_pull_of_a_prompt_is_that_of_the_slow_way_and_nothing_is_left_on_the_denoiser(
    drawing: DrawPipeline,
) -> None:
    """One step: the noise of the seed, denoised once with the prompt and once with an empty one."""
    once = replace(drawing, settings=Settings(steps=1))
    assert isinstance(once, DenoisingPipeline)
    (picture, pull), (_, other) = once.draw_with_pull(["a cat", "a dog"], [1, 2])
    assert picture == once.draw(["a cat"], [1])[0]
    pipe = once.pipeline
    told, empty = pipe.encode_prompt("a cat", "cpu", 1, True)
    noise = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved = [pipe.unet(noise, pipe.scheduler.timesteps[0], state).sample for state in (told, empty)]
    assert pull == pytest.approx(float((moved[0] - moved[1]).norm()), rel=1e-4)
    assert pull != other
    assert not pipe.unet._forward_hooks


def test_without_guidance_there_is_no_pull(drawing: DrawPipeline) -> None:
    plain = replace(drawing, settings=Settings(steps=1, guidance=1.0))
    assert isinstance(plain, DenoisingPipeline)
    assert math.isnan(plain.draw_with_pull(["a cat"], [1])[0][1])


def test_a_picture_that_the_pipeline_holds_back_is_none(drawing: DrawPipeline) -> None:
    class Filtering:
        def __call__(self, prompt: list[str], generator: Any) -> Any:
            made = drawing.pipeline(prompt=prompt, generator=generator, num_inference_steps=2)
            made.nsfw_content_detected = [False, True]
            return made

    filtering = DrawPipeline("filtering", Filtering(), {})
    first, second = filtering.draw(["a cat", "a dog"], [1, 2])
    assert first is not None
    assert second is None


def test_a_copy_is_the_same_pipeline_and_another_weight_another(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert load_draw(copied).identity == load_draw(folder).identity
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, file)
    changed, before = load_draw(copied).identity, load_draw(folder).identity
    assert [part for part in before if changed[part] != before[part]] == ["weights", "decoding"]


def test_doctor_tries_it(drawing: DrawPipeline) -> None:
    findings = {one.name: one.ok for one in checkup_draw(drawing)}
    assert findings == {
        "kind": None, "draws": True, "same seed, same picture": True, "reads the prompt": True, "seeds": True,
    }  # fmt: skip


def index(folder: Path, name: object) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "code of its own": (lambda folder: index(folder, ["mine", "Mine"]), "names no pipeline of diffusers"),
    "an unknown class": (lambda folder: index(folder, "NoSuchPipeline"), "names no pipeline of diffusers (NoSuch"),
    "no prompt": (lambda folder: index(folder, "DDPMPipeline"), "more than a prompt, or from none"),
    "pictures too": (lambda folder: index(folder, "StableDiffusionImg2ImgPipeline"), "draws from more than a prompt"),
    "no weights": (lambda folder: shutil.rmtree(folder / "unet"), "cannot be loaded as a text-to-image pipeline"),
    "cut short": (
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"{}"),
        "cannot be loaded as a text-to-image pipeline",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_loaded_is_told_why(kind: str, folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    make, said = BROKEN[kind]
    make(broken)
    with pytest.raises(ModelProblem) as problem:
        load_draw(broken)
    assert said in problem.value.message
    assert str(broken) in problem.value.message


def test_options_of_other_models_are_refused(folder: Path) -> None:
    with pytest.raises(BadParameter, match="not loaded with quantize, trust_remote_code"):
        load_draw(folder, options=LoadOptions(quantize="4bit", trust_remote_code=True))


def test_without_diffusers_the_extra_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *rest: Any) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match="No module named 'diffusers'") as problem:
        load_draw(folder)
    assert "vlmend[generate]" in problem.value.hint


def test_mends_suites_and_other_plug_ins_are_refused_with_the_kind(drawing: DrawPipeline) -> None:
    card = MendCard("cmrm", {}, "x", "", "none", "", 0, {}, {}, "")
    with pytest.raises(NeedsAccess, match="no mend edits a text-to-image pipeline yet"):
        drawing.with_mend(Mend((), card))
    with pytest.raises(UsageError, match="tiny is a text-to-image pipeline"):
        check_access(drawing, "cmrm", "chat", "states")
    with pytest.raises(UsageError, match="No suite is asked of a text-to-image pipeline unless it is named"):
        default_suites("draw")
