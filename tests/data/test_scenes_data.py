"""PATA in its authors' layout: scenes with "_" in their names, texts by connotation and attribute, pictures by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from vlmend.audit.suites.fairness.pata import SUITE
from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData

PICTURE = cast("bytes", blank_image(8).source)

SCENE = {
    "long": "photo of {race} {gender} in a show", "short": "fashion_show",
    "pos": {"races": ["photo of a good walker"], "gender": ["photo of a good walker", "photo of a winner"], "age": []},
    "neg": {"races": ["photo of a slow walker"], "gender": [], "age": ["photo of a late person"]},
}  # fmt: skip


def published(folder: Path) -> None:
    (folder / "pata_fairness.captions.json").write_text(json.dumps([SCENE]))
    (folder / "pata_fairness.files.lst").write_text(
        "fashion_show_eastasian_male_young|https://a.example/x/one.jpg?w=6\n"
        "fashion_show_black_female_old|https://a.example/two.png\n"
    )


def test_the_authors_files(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "00001.png").write_bytes(PICTURE)
    (tmp_path / "two.png").write_bytes(PICTURE)
    data = read_data(f"pata:{tmp_path}:{tmp_path}")
    pictures = [row for row in data.examples if row.image]
    assert [dict(row.attributes) for row in pictures] == [
        {"scene": "fashion_show", "race": "eastasian", "gender": "male", "age": "young"},
        {"scene": "fashion_show", "race": "black", "gender": "female", "age": "old"},
    ]
    texts = {(row.prompt, row.attributes["about"], row.attributes["connotation"]) for row in data.examples[:5]}
    assert len(texts) == 5
    assert ("photo of a late person", "age", "bad") in texts
    assert SUITE.applies(data)
    assert any("links die unequally" in note for note in data.notes)


def test_a_dead_link_is_named(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "00001.jpg").write_bytes(PICTURE)
    with pytest.raises(BadData, match=r"lacks 1 of 2 pictures of PATA.*first: 00002\.jpg"):
        read_data(f"pata:{tmp_path}:{tmp_path}")


def test_a_folder_without_the_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pata_fairness.captions.json").write_text("[]")
    with pytest.raises(BadData, match="it lacks"):
        read_data(f"pata:{tmp_path}:{tmp_path}")
