"""House rules: sizes, public names, links, harmful text."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmend
from vlmend import registry
from vlmend.core.plugins import Plugin

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MODULES = [m.name for m in pkgutil.walk_packages(vlmend.__path__, "vlmend.")]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_to_400_lines_functions_to_50(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, f"{node.name} is too long"


def test_files_are_written_in_one_place() -> None:
    """Elsewhere a kill or a full disk would leave half a file, or others could read it."""
    found = {f"{file.relative_to(ROOT)}: {name}" for file in SOURCES for name in _writes(ast.parse(file.read_text()))}
    assert found == {"src/vlmend/core/files.py: open"}
    assert [*_writes(ast.parse("a.write_text(b)\nopen(a, 'w')\na.open(mode='ab')\nopen(a)\nb.open()"))] == [
        "write_text", "open", "open",
    ]  # fmt: skip


def _writes(tree: ast.AST) -> Iterator[str]:
    """Names of the calls that write to files."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        words = [one.value for one in (*call.args, *(k.value for k in call.keywords)) if isinstance(one, ast.Constant)]
        if name in ("write_text", "write_bytes"):
            yield name
        if name == "open" and any(isinstance(one, str) and re.fullmatch(r"[wax]\+?[bt]?|r\+b?", one) for one in words):
            yield name


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    if module.__file__ and module.__file__.endswith("__init__.py") and not hasattr(module, "__all__"):
        return
    assert all(hasattr(module, public) for public in module.__all__)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert set(module.__all__) >= {n for n in defined if not n.startswith("_") and _documented_for_users(name)}


def _documented_for_users(name: str) -> bool:
    return name.startswith(("vlmend.core", "vlmend.errors", "vlmend.training"))


def test_links_between_docs_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


PLUGINS = [(group, plugin) for group in ("methods", "attacks", "steps", "suites") for plugin in registry.plugins(group)]
TESTS = {file.name for file in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize(("group", "plugin"), PLUGINS, ids=lambda part: getattr(part, "full", part))
def test_a_plugin_is_one_file_one_test_one_page(group: str, plugin: Plugin) -> None:
    module, _, attribute = plugin.place.partition(":")
    source = ROOT / "src" / f"{module.replace('.', '/')}.py"
    assert (source.stem, source.parent.name) == (plugin.name, plugin.axis)
    assert f"\n{attribute} = " in source.read_text()
    assert f"test_{plugin.name}.py" in TESTS
    assert (ROOT / "docs" / group / f"{plugin.name}.md").exists()


def test_harmful_requests_stay_in_data_files() -> None:
    files = sorted((ROOT / "src/vlmend/data/builtin").glob("harmful*.jsonl"))
    assert [file.name for file in files] == ["harmful.jsonl", "harmful_more.jsonl"]
    intents = [
        row.get("intent", row["prompt"]) for file in files for row in map(json.loads, file.read_text().splitlines())
    ]
    texts = [p.read_text() for p in [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]]
    assert not [intent for intent in intents if any(intent in text for text in texts)]
