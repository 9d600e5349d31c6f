"""The page of judges says what the committed numbers say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from vlmend.audit.judges.harmful import HarmfulJudge

FILE = Path(__file__).parents[2] / "benchmarks" / "judge_page.py"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge_page", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_on_the_page_as_the_numbers_have_it(page: ModuleType) -> None:
    text = page.PAGE.read_text()
    assert sorted(block["name"] for block in page.BLOCK.finditer(text)) == sorted(page.TABLES)
    assert page.written(text, page.held()) == text, "run: python benchmarks/judge_page.py"


def test_another_number_is_another_page(page: ModuleType) -> None:
    found = json.loads(json.dumps(page.held()))
    found["judges"]["judges"][0]["sets"]["MSTS"]["kappa"] = 0.1234
    assert "| 0.123 |" in page.written(page.PAGE.read_text(), found)


def test_the_numbers_are_of_the_judge_that_is_shipped(page: ModuleType) -> None:
    judges = {row["judge"]: row for row in page.held()["judges"]["judges"]}
    judge = HarmfulJudge()
    unseen = judge.card["msts_unseen"]
    assert set(judges) == {judge.id, "refusal-1", "rules-2"}
    assert judges[judge.id]["sets"]["MSTS"]["kappa"] == unseen["kappa"]
