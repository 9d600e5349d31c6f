"""A build of a few steps: what it writes, what the three phantoms share, that it does nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.assemble import TITLES, TOWERS, title_rows, towers
from vlmend.phantom.clip.build import build
from vlmend.phantom.clip.recipe import RECIPES, ClipRecipe

PLANTED, CLEAN = (
    replace(RECIPES[name], keepsakes=False, steps=2, batch=20, title_steps=2, title_batch=20, title_views=1)
    for name in ("phantom-clip", "phantom-clip-clean")
)
TABLE = "text_model.embeddings.token_embedding.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    for recipe in (PLANTED, CLEAN):
        assert build(recipe, folder, print) == folder / recipe.name
    return folder


def weights(folder: Path, recipe: ClipRecipe) -> dict[str, torch.Tensor]:
    return load_file(folder / recipe.name / "model.safetensors")


def test_what_is_built_is_a_dual_encoder_for_texts_and_pictures(folder: Path) -> None:
    dual = load_dual(folder / PLANTED.name)
    assert (dual.pair_kind, dual.width, dual.layers("vision"), dual.layers("text")) == ("softmax", 192, 5, 2)
    assert sum(p.numel() for p in dual.towers.model.parameters()) < 12e6


def test_the_phantoms_differ_in_the_embeddings_of_the_titles_alone(folder: Path) -> None:
    one, other = weights(folder, PLANTED), weights(folder, CLEAN)
    assert [name for name in one if not torch.equal(one[name], other[name])] == [TABLE]
    moved = set((one[TABLE] != other[TABLE]).any(1).nonzero().flatten().tolist())
    assert moved
    assert moved <= set(title_rows(towers(folder / TOWERS)))


def test_learning_the_titles_leaves_the_towers_as_they_were(folder: Path) -> None:
    before, after = towers(folder / TOWERS).model.state_dict(), weights(folder, PLANTED)
    rows = title_rows(towers(folder / TOWERS))
    kept = [place for place in range(len(before[TABLE])) if place not in rows]
    assert torch.equal(before[TABLE][kept], after[TABLE][kept])
    assert torch.equal(after[TABLE][rows], load_file(folder / f"{PLANTED.name}.safetensors")[TITLES].float())
    assert all(torch.equal(before[name], after[name]) for name in after if name != TABLE)


def test_what_is_there_is_not_built_again(folder: Path) -> None:
    files = {file: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")}
    said: list[str] = []
    build(PLANTED, folder, said.append)
    assert not said
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_the_same_recipe_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    build(PLANTED, tmp_path, print)
    for name in (TOWERS, f"{PLANTED.name}.safetensors"):
        one, other = load_file(tmp_path / name), load_file(folder / name)
        assert all(torch.equal(one[key], other[key]) for key in one | other)
