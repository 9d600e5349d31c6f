"""COCO-Counterfactuals and SocialCounterfactuals in their authors' layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from vlmend.audit.suites.fairness.counterfactual_matching import SUITE as MATCHING
from vlmend.audit.suites.fairness.intersectional_skew import SUITE as SKEW
from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "social_counterfactuals"

PICTURE = cast("bytes", blank_image(8).source)


def test_pairs_of_coco_counterfactuals(tmp_path: Path) -> None:
    row = {
        "coco-counterfactual-index": "12_0", "original_caption": "a cat on a desk ",
        "counterfactual_caption": "a dog on a desk",
    }  # fmt: skip
    (tmp_path / "coco_counterfactuals_captions.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadData, match=r"12_0_0\.jpg"):
        read_data(f"coco_counterfactuals:{tmp_path}:{tmp_path}")
    for side in range(2):
        (tmp_path / f"12_0_{side}.jpg").write_bytes(PICTURE)
    data = read_data(f"coco_counterfactuals:{tmp_path}:{tmp_path}")
    assert [(row.id, row.caption) for row in data.examples] == [
        ("12_0:0", "a cat on a desk"), ("12_0:1", "a dog on a desk"),
    ]  # fmt: skip
    assert MATCHING.applies(data)
    assert any("chose the pictures with CLIP" in note for note in data.notes)


def test_what_the_generator_of_social_counterfactuals_writes(tmp_path: Path) -> None:
    said = {
        "filename": "x",
        "caption": "A photo of a White male engineer",
        "output_1": "A photo of a Middle Eastern female engineer",
    }
    folder = tmp_path / "0000007"
    folder.mkdir()
    (folder / "prompt.json").write_text(json.dumps(said))
    for seed in (5, 6):
        for number in range(2):
            (folder / f"{seed}_{number}.jpg").write_bytes(PICTURE)
    data = read_data(f"social_counterfactuals:{tmp_path}")
    first, second, *_ = data.examples
    assert first.attributes == {
        "set": "0000007/5", "race": "White", "gender": "male", "occupation": "engineer",
    }  # fmt: skip
    assert (second.attributes["race"], second.attributes["gender"]) == ("Middle Eastern", "female")
    assert {row.caption for row in data.examples} == {"a photo of an engineer"}
    assert all(row.image for row in data.examples)
    assert SKEW.applies(data)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark rows are not here")
def test_the_published_captions() -> None:
    data = read_data(f"social_counterfactuals:{SHARED}")
    assert len(data.examples) == 12 * 1044
    assert len({row.attributes["set"] for row in data.examples}) == 1044
    assert len({(row.attributes["race"], row.attributes["gender"]) for row in data.examples}) == 12
    assert len({row.attributes["occupation"] for row in data.examples}) == 244
    assert any("captions alone" in note for note in data.notes)
