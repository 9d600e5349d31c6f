"""Contact sheets: their layout, and those in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tools.phantom.pictures_sheet import pool_sheet

from vlmend.pictures.pool import drawn

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def test_the_pool_sheet_has_a_row_for_each_part_and_shift() -> None:
    sheet = pool_sheet(columns=2, seed=5)
    assert sheet.size == (110 + 2 * 74, (4 * 5 + 1) * 74)
    second_word = drawn("word", "held_out", 5, 1, "font").image
    assert sheet.crop((184, 20 * 74, 184 + 72, 20 * 74 + 72)).tobytes() == second_word.tobytes()


@pytest.mark.parametrize("name", ["glyphs", "people", "pool"])
def test_sheets_in_the_docs_are_small_files(name: str) -> None:
    file = PICTURES / f"pictures_{name}.png"
    assert file.stat().st_size < 600_000
    with Image.open(file) as sheet:
        assert min(sheet.size) > 500
