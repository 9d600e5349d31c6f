"""A step is applied, written with its report, and named in what it made; `vlmend data` is the same on a screen."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from vlmend.cli.datas import app
from vlmend.core.contracts import AbstractStep, Changed, DataEdit, Dropped
from vlmend.core.examples import Dataset, Example
from vlmend.data.layouts import read_data
from vlmend.errors import UsageError
from vlmend.steps.running import apply_step


@dataclass(frozen=True)
class Trim(AbstractStep):
    """Drops rows of more than `most` words and takes the space around the others away."""

    name: ClassVar[str] = "trim"
    source: ClassVar[str] = "-"
    most: int = 2

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        long = [row for row in data.examples if len(row.prompt.split()) > self.most]
        rest = [row for row in data.examples if row not in long]
        after = [replace(row, prompt=row.prompt.strip()) for row in rest]
        changed = tuple(Changed(a, b, "space: around it") for a, b in zip(rest, after, strict=True) if a != b)
        kept = replace(data, examples=tuple(after))
        return DataEdit(kept, changed, tuple(Dropped(row, f"words: over {self.most}") for row in long))


ROWS = Dataset("set", (Example("a", " one "), Example("b", "two"), Example("c", "one two three")), test_only=True)


def test_the_new_set_is_written_and_says_where_it_comes_from(tmp_path: Path) -> None:
    edit = apply_step(Trim(), ROWS, seed=3, out=tmp_path / "out")
    read = read_data(str(tmp_path / "out"))
    assert [example.prompt for example in read.examples] == ["one", "two"]
    assert (read.name, read.digest, read.test_only) == ("set-trim", edit.data.digest, True)
    assert read.notes[-1] == 'Step trim {"most": 2}, seed 3: 1 kept, 1 changed, 1 dropped.'


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(apply_step(Trim(), ROWS).dropped) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`trim` as the step of another package, and a data file."""
    (tmp_path / "trimmer.py").write_text("from tests.steps.test_step_running import Trim as STEP\n")
    info = tmp_path / "trimmer-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trimmer\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vlmend.steps]\nutility/trim = trimmer:STEP\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trimmer", raising=False)
    rows = '{"id": "a", "prompt": "one two"}\n{"id": "b", "prompt": "two"}\n'
    (tmp_path / "set.jsonl").write_text(dedent(rows))
    return tmp_path / "set.jsonl"


def test_the_verb_prints_one_line_and_where_the_report_is(installed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = CliRunner().invoke(app, ["data", "trim", str(installed), "--out", str(out), "--set", "most=1"])
    assert told.exit_code == 0, told.output
    assert told.output.strip() == f"1 kept, 0 changed, 1 dropped; report: {out / 'report.md'}"
    assert (out / "report.md").is_file()


def test_the_verb_gives_the_report_as_json(installed: Path, tmp_path: Path) -> None:
    call = ["data", "trim", str(installed), "--out", str(tmp_path / "out"), "--set", "most=1", "--json"]
    told = json.loads(CliRunner().invoke(app, call).output)
    assert told["summary"] == "1 kept, 0 changed, 1 dropped"
    assert told["dropped"] == [{"id": "a", "why": "words: over 1"}]


def test_a_parameter_that_is_no_pair_is_refused(installed: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["data", "trim", str(installed), "--out", str(tmp_path / "out"), "--set", "most"])
    assert isinstance(told.exception, UsageError)
    assert not (tmp_path / "out").exists()
