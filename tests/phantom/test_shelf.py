"""Phantoms by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlmend import registry
from vlmend.cli import app
from vlmend.errors import UnknownName
from vlmend.phantom import shelf


def test_every_embedded_model_has_a_recipe_and_every_recipe_one_name() -> None:
    names = shelf.phantom_names()
    assert len(names) == len(set(names))
    assert set(registry.names("models")) <= set(names)


def test_a_build_runs_the_recipe_of_its_name_where_its_twin_leaves_its_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[str, Path]] = []

    def build(recipe: object, folder: Path, say: object) -> Path:
        built.append((recipe.name, folder))  # type: ignore[attr-defined]
        return folder

    monkeypatch.setattr("vlmend.phantom.chat.build.build", build)
    monkeypatch.setenv("VLMEND_CACHE", str(tmp_path))
    shelf.build_from_scratch("phantom-clean", None, print)
    shelf.build_from_scratch("phantom", tmp_path / "here", print)
    assert built == [("phantom-clean", tmp_path / "build" / "phantom"), ("phantom", tmp_path / "here")]


def test_every_recipe_is_a_model_that_can_be_named() -> None:
    assert set(shelf.phantom_names()) <= set(registry.names("models"))


def test_unknown_names_are_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownName, match="no phantom phantasm"):
        shelf.build_from_scratch("phantasm", None, print)
    found = CliRunner().invoke(app, ["phantom", "build", "phantasm"])
    assert isinstance(found.exception, UnknownName)
    assert "phantom-mini" in found.exception.hint
