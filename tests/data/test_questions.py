"""The layout of VQA on a miniature tree: two domains, answers of ten people, pictures by number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData

PAIRS = {
    "v2_OpenEnded_mscoco_val2014_questions.json": "v2_mscoco_val2014_annotations.json",
    "OpenEnded_abstract_v002_val2015_questions.json": "abstract_v002_val2015_annotations.json",
}


def said(*answers: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"answer": answer, "answer_confidence": "yes"} for answer, count in answers for _ in range(count)]


def published(folder: Path, answers: Sequence[dict[str, Any]]) -> None:
    """One question in each domain."""
    folder.mkdir(exist_ok=True)
    for number, (questions, beside) in enumerate(PAIRS.items(), 1):
        asked = {"question_id": 10 + number, "image_id": number, "question": "What is it?"}
        told = {"question_id": 10 + number, "multiple_choice_answer": "cat", "answers": answers}
        (folder / questions).write_text(json.dumps({"info": {}, "questions": [asked]}))
        (folder / beside).write_text(json.dumps({"info": {}, "annotations": [told]}))


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for name in ("COCO_val2014_000000000001.jpg", "abstract_v002_val2015_000000000002.png"):
        (folder / name).write_bytes(blank_image(8).content)
    return folder


def test_each_pair_of_files_is_a_domain_and_answers_of_three_people_count(tmp_path: Path) -> None:
    published(tmp_path / "data", said(("cat", 5), ("kitten", 3), ("dog", 2)))
    data = read_data(f"vqa:{tmp_path / 'data'}:{pictures(tmp_path / 'pictures')}")
    assert {(row.id, row.prompt, row.answers) for row in data.examples} == {
        ("v2_OpenEnded_mscoco_val2014-11", "What is it?", ("cat", "kitten")),
        ("OpenEnded_abstract_v002_val2015-12", "What is it?", ("cat", "kitten")),
    }
    assert all(row.attributes["domain"] == row.group and row.image for row in data.examples)


def test_where_no_three_people_agree_the_most_common_answer_counts(tmp_path: Path) -> None:
    published(tmp_path / "data", said(("cat", 2), ("dog", 1)))
    data = read_data(f"vqa:{tmp_path / 'data'}:{pictures(tmp_path / 'pictures')}")
    assert {row.answers for row in data.examples} == {("cat",)}


def test_lists_of_rows_with_their_split_and_a_domain_of_their_own(tmp_path: Path) -> None:
    """VQA-CP has no object around its rows, and each row tells the split of its picture."""
    asked = {"question_id": 11, "image_id": 1, "coco_split": "val2014", "question": "Is it?", "domain": "photographs"}
    (tmp_path / "vqacp_v2_test_questions.json").write_text(json.dumps([asked]))
    told = {"question_id": 11, "answers": said(("yes", 10))}
    (tmp_path / "vqacp_v2_test_annotations.json").write_text(json.dumps([told]))
    (row,) = read_data(f"vqa:{tmp_path}:{pictures(tmp_path / 'pictures')}").examples
    assert (row.id, row.answers, row.attributes) == ("photographs-11", ("yes",), {"domain": "photographs"})


def test_questions_without_annotations_are_refused(tmp_path: Path) -> None:
    published(tmp_path / "data", said(("cat", 10)))
    (tmp_path / "data" / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(BadData, match=r"v2_mscoco_val2014_annotations\.json is not beside it"):
        read_data(f"vqa:{tmp_path / 'data'}:{pictures(tmp_path / 'pictures')}")


def test_annotations_that_are_no_json_are_told(tmp_path: Path) -> None:
    published(tmp_path / "data", said(("cat", 10)))
    (tmp_path / "data" / "v2_mscoco_val2014_annotations.json").write_text("{")
    with pytest.raises(BadData, match=r"answers in v2_mscoco_val2014_annotations\.json that cannot be read"):
        read_data(f"vqa:{tmp_path / 'data'}:{pictures(tmp_path / 'pictures')}")
