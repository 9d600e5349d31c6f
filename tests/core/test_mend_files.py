"""What `Mend.load` takes: both halves of one mend, with values that its fields can hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlmend.core.dual_edits import MapTexts
from vlmend.core.edits import AddVector, Edit, RefuseWhen
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, ModelProblem, UsageError
from vlmend.testing import tiny_clip, tiny_vlm

SITE = Site("language", 1)
CARD = MendCard("m", {"alpha": 0.25}, "base", "digest", "d", "d", 0, {}, {}, "")


def mend(value: float = 1.0, width: int = 4) -> Mend:
    return Mend((AddVector(SITE, torch.full((width,), value)),), CARD)


def refused(folder: Path) -> str:
    with pytest.raises(UsageError) as problem:
        Mend.load(folder)
    return problem.value.message


def test_halves_of_two_mends_are_refused(tmp_path: Path) -> None:
    mend(1.0).save(tmp_path / "old")
    mend(2.0).save(tmp_path / "new")
    (tmp_path / "new" / "mend.safetensors").replace(tmp_path / "old" / "mend.safetensors")
    assert "halves of two mends" in refused(tmp_path / "old")


def test_a_kill_between_the_two_files_leaves_no_mend_that_loads(tmp_path: Path) -> None:
    mend(1.0).save(tmp_path)
    killed = (
        "import os, pathlib, torch\n"
        "from vlmend.core.mend import Mend\n"
        f"mend, replace, calls = Mend.load(pathlib.Path({str(tmp_path)!r})), pathlib.Path.replace, []\n"
        "def once(self, place):\n"
        "    if calls: os.kill(os.getpid(), 9)\n"
        "    calls.append(replace(self, place))\n"
        "pathlib.Path.replace = once\n"
        f"mend.scaled(2.0).save(pathlib.Path({str(tmp_path)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert "halves of two mends" in refused(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_mend_of_no_numbers_is_not_saved(tmp_path: Path, value: float) -> None:
    with pytest.raises(ModelProblem, match="holds NaN or infinite numbers"):
        mend(value).save(tmp_path / "mend")
    assert not (tmp_path / "mend").exists()


def test_mends_of_before_know_no_digest_and_load(tmp_path: Path) -> None:
    mend().save(tmp_path)
    manifest = json.loads((tmp_path / "mend.json").read_text())
    del manifest["tensors"]
    (tmp_path / "mend.json").write_text(json.dumps(manifest))
    assert Mend.load(tmp_path).digest == mend().digest


def shifted(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["edits"][0].update({name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shifted("tokens", "first"), "AddVector.tokens: Input should be 'last_prompt'"),
        (shifted("vector", [1.0, 2.0]), "AddVector.vector: Input should be an instance of Float"),
        (shifted("site", {"$site": "language.one.resid_post"}), "'language.one.resid_post' is no site"),
        (shifted("gate", {"$gate": {"bias": 1}}), "Gate.site: Field required"),
        (shifted("scale", 2), "AddVector.scale: Extra inputs"),
        (lambda manifest: manifest["card"].update({"seed": "0"}), "MendCard.seed: Input should be a valid integer"),
    ],
)
def test_a_value_that_its_field_cannot_hold_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    mend().save(tmp_path)
    manifest = json.loads((tmp_path / "mend.json").read_text())
    change(manifest)
    (tmp_path / "mend.json").write_text(json.dumps(manifest))
    assert said in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held * torch.nan, "AddVector.vector holds NaN or infinite numbers"),
        (lambda held: held * torch.inf, "AddVector.vector holds NaN or infinite numbers"),
        (lambda held: held[None].contiguous(), "torch.float32 of shape (1, 4)"),
        (lambda held: held.long(), "torch.int64 of shape (4,)"),
    ],
)
def test_tensors_that_are_no_numbers_or_of_another_shape_are_named(
    tmp_path: Path, change: Callable[[Tensor], Tensor], said: str
) -> None:
    mend().save(tmp_path)
    file = tmp_path / "mend.safetensors"
    save_file({name: change(held) for name, held in load_file(file).items()}, file)
    manifest = json.loads((tmp_path / "mend.json").read_text())
    del manifest["tensors"]
    (tmp_path / "mend.json").write_text(json.dumps(manifest))
    assert said in refused(tmp_path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (AddVector(Site("language", 9), torch.ones(32)), "language.9.resid_post is not in this model"),
        (AddVector(SITE, torch.ones(7)), "AddVector at language.1.resid_post is 7 numbers wide"),
        (RefuseWhen((1,), (10**6,), 0.1, "no"), "RefuseWhen looks at token 1000000, and this model has 99"),
    ],
)
def test_edits_without_a_place_in_the_model_are_refused_before_it_is_asked(edit: Edit, said: str) -> None:
    target = tiny_vlm()
    card = MendCard("m", {}, target.name, target.model_digest, "d", "d", 0, {}, {}, "")
    with pytest.raises(BadParameter, match=said):
        target.with_mend(Mend((edit,), card))


def test_maps_of_another_width_are_refused_by_a_dual_encoder() -> None:

    target = tiny_clip()
    card = MendCard("m", {}, target.name, target.model_digest, "d", "d", 0, {}, {}, "")
    target.with_mend(Mend((MapTexts(torch.eye(16)),), card))
    with pytest.raises(BadParameter, match="MapTexts is 15 numbers wide, and this model's embeddings are 16"):
        target.with_mend(Mend((MapTexts(torch.eye(15)),), card))
