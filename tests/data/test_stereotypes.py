"""BBQ, CrowS-Pairs, WinoBias, Winogender and FairFace in their authors' layouts, and the shared rows of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

here = pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark rows are not here")


def test_bbq_as_its_authors_publish_it(tmp_path: Path) -> None:
    row = {
        "example_id": 7, "question_index": "2", "question_polarity": "neg", "context_condition": "ambig",
        "category": "Age", "answer_info": {"ans0": ["a", "old"], "ans1": ["b", "nonOld"], "ans2": ["c", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"]}, "context": "Two met.", "question": "Who was late?",
        "ans0": "The old one", "ans1": "The young one", "ans2": "Cannot be known", "label": 2,
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Age.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = read_data(f"bbq:{tmp_path}").examples
    assert (found.id, found.prompt, found.group) == ("Age-7", "Two met. Who was late?", "Age")
    assert found.answers == ("Cannot be known",)
    assert found.attributes["stereotyped_groups"] == "old"
    assert found.attributes["answer_groups"] == "old; nonOld; unknown"
    (tmp_path / "data" / "Age.jsonl").write_text(json.dumps(row | {"label": 3}) + "\n")
    with pytest.raises(BadData, match="a label of 3"):
        read_data(f"bbq:{tmp_path}")


def test_crows_pairs_as_its_authors_publish_it(tmp_path: Path) -> None:
    (tmp_path / "crows_pairs_anonymized.csv").write_text(
        ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
        '0,"One, two.","One, three.",stereo,age,"[]"\n1,x,y,antistereo,gender,"[]"\n'
    )
    rows = read_data(f"crows_pairs:{tmp_path}").examples
    assert [row.id for row in rows] == ["0:more", "0:less", "1:more", "1:less"]
    assert (rows[0].prompt, rows[0].group, rows[2].attributes["direction"]) == ("One, two.", "age", "antistereo")


def test_winobias_as_its_authors_publish_it(tmp_path: Path) -> None:
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text("1 [The cook] met the judge since [he] was late.\n\n")
    (tmp_path / "anti_stereotyped_type1.txt.dev").write_text("1 [The cook] met the judge since [she] was late.\n")
    rows = {row.id: row for row in read_data(f"winobias:{tmp_path}").examples}
    assert list(rows) == ["dev_t1_1:anti", "dev_t1_1:pro"]
    pro = rows["dev_t1_1:pro"]
    assert (pro.prompt, pro.answers) == ("The cook met the judge since he was late.", ("The cook",))
    assert pro.attributes == {"pair": "dev_t1_1", "stereotype": "pro", "type": "1", "pronoun": "he"}


def test_a_sentence_without_its_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pro_stereotyped_type2.txt.test").write_text("1 The cook met [the judge].\n")
    with pytest.raises(BadData, match="no occupation and pronoun in brackets"):
        read_data(f"winobias:{tmp_path}")


def test_winogender_as_its_authors_publish_it(tmp_path: Path) -> None:
    (tmp_path / "all_sentences.tsv").write_text(
        "sentid\tsentence\ncook.guest.1.female.txt\tThe cook told the guest that she could pay.\n"
    )
    (row,) = read_data(f"winogender:{tmp_path}").examples
    assert (row.answers, row.group, row.attributes["occupation"]) == (("guest",), "female", "cook")
    assert row.attributes["pair"] == "cook.guest.1"


def test_fairface_with_and_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "fairface_label_val.csv").write_text(
        "file,age,gender,race,service_test\nval/1.jpg,3-9,Male,East Asian,False\n"
    )
    data = read_data(f"fairface_labels:{tmp_path}")
    (row,) = data.examples
    assert row.attributes == {"race": "East Asian", "gender": "Male", "age": "3-9", "groups_by": "annotators"}
    assert row.image is None
    assert any("labels alone" in note for note in data.notes)
    (tmp_path / "faces" / "val").mkdir(parents=True)
    (tmp_path / "faces" / "val" / "1.jpg").write_bytes(cast("bytes", blank_image(8).source))
    (row,) = read_data(f"fairface_labels:{tmp_path}:{tmp_path / 'faces'}").examples
    assert row.image is not None


@here
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("bbq", "subset.jsonl", 1440), ("crows_pairs", "pairs.jsonl", 3016), ("winobias", "sentences.jsonl", 3168),
        ("winogender", "sentences.csv", 720), ("fairface_labels", "val_labels.csv", 10954),
    ],
)  # fmt: skip
def test_the_shared_rows(name: str, file: str, count: int) -> None:
    data = read_data(f"{name}:{SHARED / name / file}")
    assert len(data.examples) == count
    assert len({row.id for row in data.examples}) == count
