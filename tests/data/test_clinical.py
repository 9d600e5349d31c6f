"""Harvard-FairVLMed in its authors' layout: codes to groups, unknown ones to none, the two texts, broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmend.audit.suites.fairness.group_outcomes import SUITE
from vlmend.data.layouts import read_data
from vlmend.errors import BadData


def published(folder: Path, name: str, **codes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"race": 2, "gender": 0, "ethnicity": 0, "language": 1, "maritalstatus": 0, "glaucoma": 1} | codes
    arrays = {key: np.array(value) for key, value in fields.items()}
    arrays |= {"slo_fundus": np.full((8, 6), 200.0), "note": np.array("a note"), "age": np.array(61.5)}
    np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)


def test_the_authors_folder(tmp_path: Path) -> None:
    published(tmp_path / "Testing", "data_08002", race=0, gender=1, language=-1, ethnicity=-1, glaucoma=0)
    published(tmp_path / "Testing", "data_08001")
    data = read_data(f"fairvlmed:{tmp_path}")
    rows = {row.id: row for row in data.examples}
    first, second = rows["Testing/data_08001"], rows["Testing/data_08002"]
    assert first.attributes == {
        "outcome": "yes", "race": "White", "gender": "female", "ethnicity": "non-Hispanic", "language": "Spanish",
    }  # fmt: skip
    assert second.attributes == {"outcome": "no", "race": "Asian", "gender": "male"}
    assert first.image is not None
    assert first.image.decode().size == (6, 8)
    assert first.image.decode().getpixel((0, 0)) == (200, 200, 200)
    assert (first.caption, first.prompt) == ("a note", "")
    assert {row.prompt: row.attributes["outcome"] for row in data.examples if row.image is None} == {
        "A photo of glaucoma": "yes", "A photo of non-glaucoma": "no",
    }  # fmt: skip
    assert SUITE.applies(data)
    assert any("never for clinical decisions" in note.casefold() for note in data.notes)


def test_a_part_of_it(tmp_path: Path) -> None:
    published(tmp_path / "Training", "data_00001")
    published(tmp_path / "Testing", "data_08001")
    assert len(read_data(f"fairvlmed:{tmp_path / 'Testing'}").examples) == 3


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    published(tmp_path, "data_08001")
    (tmp_path / "data_08002.npz").write_bytes(b"cut short")
    with pytest.raises(BadData, match=r"data_08002\.npz is no file of Harvard-FairVLMed"):
        read_data(f"fairvlmed:{tmp_path}")
