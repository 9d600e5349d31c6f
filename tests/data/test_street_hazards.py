"""StreetHazards in its authors' layout on a miniature tree: masks from labels, towns as groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vlmend.data.layouts import read_data
from vlmend.errors import BadData


def published(root: Path, labels: list[list[int]]) -> Path:
    for folder in ("images/test/t5", "annotations/test/t5"):
        (root / "test" / folder).mkdir(parents=True)
    PIL.Image.new("RGB", (3, 1)).save(root / "test" / "images/test/t5/300.png")
    PIL.Image.fromarray(np.array(labels, np.uint8)).save(root / "test" / "annotations/test/t5/300.png")
    row = {"fpath_img": "images/test/t5/300.png", "fpath_segm": "annotations/test/t5/300.png", "width": 3, "height": 1}
    (root / "test" / "test.odgt").write_text(json.dumps([row]))
    return root


def test_labels_become_a_mask(tmp_path: Path) -> None:
    """Unlabelled (1) is void, a car (11) is known, 14 is unknown."""
    (row,) = read_data(f"street_hazards:{published(tmp_path, [[1, 11, 14]])}").examples
    assert np.asarray(row.more_images[0].decode().convert("L")).tolist() == [[128, 0, 255]]
    assert (row.group, row.id) == ("t5", "images/test/t5/300.png")
    assert row.image is not None
    assert "car" in row.answers
    assert "other" not in row.answers


def test_labels_that_are_not_there_are_named(tmp_path: Path) -> None:
    published(tmp_path, [[1, 11, 14]])
    (tmp_path / "test/annotations/test/t5/300.png").unlink()
    with pytest.raises(BadData, match=r"labels annotations/test/t5/300\.png that cannot be read"):
        read_data(f"street_hazards:{tmp_path}")


def test_labels_in_colour_are_refused(tmp_path: Path) -> None:
    published(tmp_path, [[1, 11, 14]])
    PIL.Image.new("RGB", (3, 1)).save(tmp_path / "test/annotations/test/t5/300.png")
    with pytest.raises(BadData, match="with 3 axes"):
        read_data(f"street_hazards:{tmp_path}")
