"""What shows results names no plug-in: it follows what scorecards and files say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmend
from vlmend import registry

SOURCE = Path(vlmend.__file__).parent
STUDY_OF_ONE_METHOD = ("studies/cmrm/", "studies/auto.py")
"""The study of CMRM, and the candidates from which it is chosen."""

FILES = [
    file
    for file in (*SOURCE.glob("report/*"), SOURCE / "printing.py", *SOURCE.glob("studies/**/*.py"))
    if file.suffix in (".py", ".js", ".jinja") and not str(file.relative_to(SOURCE)).startswith(STUDY_OF_ONE_METHOD)
]
NAMES = {
    name
    for group in ("methods", "suites", "attacks", "steps")
    for plugin in registry.plugins(group)
    for name in (plugin.full, plugin.name)
} - {"bold"}  # a style of type, too


def literals(file: Path) -> Iterator[str]:
    """Every string of a file of code; of a page or a script, whatever stands between quotes."""
    if file.suffix == ".py":
        nodes = ast.walk(ast.parse(file.read_text()))
        yield from (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    else:
        yield from (found[2] for found in re.finditer(r"""(["'`])((?:(?!\1).)*)\1""", file.read_text()))


def named(text: str) -> set[str]:
    """The plug-ins that a string names: it is the name, or holds a full one."""
    return {name for name in NAMES if text == name or ("/" in name and name in text)}


def test_the_check_finds_what_it_looks_for(tmp_path: Path) -> None:
    some = registry.names("suites")[0]
    (tmp_path / "one.py").write_text(f"GAP = {some!r}\nSHORT = {some.rpartition('/')[2]!r}\n")
    (tmp_path / "two.jinja").write_text(f'{{% if suite == "{some}" %}}')
    for file in tmp_path.iterdir():
        assert set().union(*map(named, literals(file)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_plug_in_is_named_in_what_shows_results(file: Path) -> None:
    assert {name for text in literals(file) for name in named(text)} == set()
