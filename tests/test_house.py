"""House rules: sizes, public names, links, harmful text."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

import vlmend

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


def test_every_suite_has_a_page() -> None:
    from vlmend import registry

    for name in registry.suite_names():
        assert (ROOT / "docs" / "suites" / f"{name.split('/')[-1]}.md").exists()


def test_harmful_requests_stay_in_data_files() -> None:
    rows = (ROOT / "src/vlmend/data/builtin/harmful.jsonl").read_text().splitlines()
    intents = [json.loads(row)["intent"] for row in rows]
    texts = [p.read_text() for p in [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]]
    assert not [intent for intent in intents if any(intent in text for text in texts)]
