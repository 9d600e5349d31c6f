"""LAION's metadata, and the folders that img2dataset writes, as data to audit."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from vlmend.audit.suites.safety.data_toxicity import DataToxicity
from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData


def downloaded(folder: Path) -> Path:
    """One shard as img2dataset writes it: pictures below their shard, a table beside it, and one that was gone."""
    shard = folder / "00000"
    shard.mkdir(parents=True)
    for k in range(2):
        blank_image(8 + k).decode().save(shard / f"00000000{k}.jpg")
    rows = [
        {"url": f"https://a.example/{k}", "caption": f"barn {k}", "key": f"00000000{k}", "punsafe": 0.1 + 0.3 * k,
         "status": "failed_to_download" if k == 2 else "success", "similarity": None}
        for k in range(3)
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    return folder


def test_metadata_of_laion_alone_is_captions_with_their_scores(tmp_path: Path) -> None:
    rows = [
        {"SAMPLE_ID": 1, "URL": "https://a.example/1", "TEXT": "a barn", "NSFW": "UNLIKELY", "similarity": 0.31},
        {"SAMPLE_ID": 2, "URL": "https://a.example/2", "TEXT": ""},
    ]
    (tmp_path / "part-0.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = read_data(f"laion:{tmp_path}")
    (found,) = data.examples
    assert (found.caption, found.prompt, found.image) == ("a barn", "", None)
    assert found.attributes == {"url": "https://a.example/1", "nsfw": "UNLIKELY", "similarity": "0.31"}
    assert "1 rows left out: without words." in data.notes
    assert any("addresses are not fetched" in note for note in data.notes)


def test_a_folder_of_img2dataset_has_its_pictures_by_their_keys(tmp_path: Path) -> None:
    folder = downloaded(tmp_path / "out")
    rows = read_data(f"laion:{folder}").examples
    assert [(row.id, row.caption, row.image is not None) for row in rows] == [
        ("000000000", "barn 0", True), ("000000001", "barn 1", True), ("000000002", "barn 2", False),
    ]  # fmt: skip
    pictured = read_data(f"laion:{folder}:{folder}")
    assert [row.id for row in pictured.examples] == ["000000000", "000000001"]
    assert any("not to be had" in note for note in pictured.notes)


def test_the_suite_reads_laions_score_of_pictures(tmp_path: Path) -> None:
    """Of scores 0.1, 0.4 and 0.7 one of three is 0.5 or above."""
    data = read_data(f"laion:{downloaded(tmp_path / 'out')}")
    suite = DataToxicity(scorer="grim")
    rows = {(row.name, row.group): row for row in suite.measures(suite.samples(data, None, None, seed=0), 0)}
    assert rows["nsfw_rate", "pictures"].value == pytest.approx(1 / 3)
    assert rows["hate_content_rate", "any"].value == 0


def test_other_rows_are_told_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "hello"}))
    with pytest.raises(BadData, match="no URL"):
        read_data(f"laion:{tmp_path}")
