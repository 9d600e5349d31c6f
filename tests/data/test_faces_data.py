"""FACET and CelebA in their layouts on miniature trees: one person a picture, votes for a tone, parts, names."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from vlmend.audit.suites.fairness.group_outcomes import SUITE
from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget
from vlmend.data.layouts import read_data
from vlmend.errors import BadData, UsageError
from vlmend.models.vlm import VLM

PICTURE = cast("bytes", blank_image(8).source)

COLUMNS = (
    "person_id", "filename", "class1", "class2", "bounding_box", *(f"skin_tone_{k}" for k in range(1, 11)),
    *(f"gender_presentation_{name}" for name in ("masc", "fem", "non_binary", "na")),
    *(f"age_presentation_{name}" for name in ("young", "middle", "older", "na")),
)  # fmt: skip


def person(number: int, file: str, **told: object) -> str:
    row = dict.fromkeys(COLUMNS, "0") | {"person_id": str(number), "filename": file, "class1": "disk_jockey"}
    row |= {"class2": "", "bounding_box": '"{""x"": 1, ""y"": 2}"'} | {name: str(value) for name, value in told.items()}
    return ",".join(row[name] for name in COLUMNS)


def facet(folder: Path, *people: str) -> str:
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "annotations.csv").write_text("\n".join((",".join(COLUMNS), *people)) + "\n")
    for where, file in (("imgs_1", "a.jpg"), ("imgs_3", "b.jpg"), ("imgs_2", "c.jpg")):
        (folder / where).mkdir(exist_ok=True)
        (folder / where / file).write_bytes(PICTURE)
    return f"facet:{folder}"


def test_people_of_facet(tmp_path: Path) -> None:
    rows = facet(
        tmp_path,
        person(11, "a.jpg", class2="singer", gender_presentation_fem=1, age_presentation_middle=1, skin_tone_3=2,
               skin_tone_4=3),
        person(12, "b.jpg", gender_presentation_na=1, age_presentation_na=1, skin_tone_5=2, skin_tone_6=2),
        person(13, "c.jpg", gender_presentation_masc=1), person(14, "c.jpg", gender_presentation_fem=1),
    )  # fmt: skip
    data = read_data(rows)
    alone, unknown = data.examples
    assert (alone.id, alone.group, alone.answers) == ("11", "feminine", ("disk jockey", "singer"))
    assert alone.attributes == {
        "occupation": "disk jockey", "groups_by": "annotators", "gender": "feminine", "age": "middle", "skin_tone": "4",
    }  # fmt: skip
    assert (unknown.group, unknown.attributes) == ("", {"occupation": "disk jockey", "groups_by": "annotators"})
    assert all(row.image for row in data.examples)
    assert any("2 rows left out: more people than one" in note for note in data.notes)


class Nothing(AbstractMethod[ChatTarget]):
    """A method that would fit on anything."""

    name, source, needs, passes, data = "nothing", "-", "replies", "none", "none"

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        raise AssertionError("it was fitted")


def test_nothing_is_fitted_on_facet(tmp_path: Path, tiny: VLM) -> None:
    data = read_data(facet(tmp_path, person(11, "a.jpg")))
    with pytest.raises(UsageError, match="facet is for testing only"):
        Nothing().fit(tiny, data, seed=0)


def test_votes_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    rows = facet(tmp_path, person(11, "a.jpg", skin_tone_3="many"))
    with pytest.raises(BadData, match="row 1 has a skin_tone_3 of many, which is no number"):
        read_data(rows)


def celeba(folder: Path, heads: str = "Blond_Hair Male Young", first: str = "1 -1 1") -> str:
    for name in ("Anno", "Eval", "Img/img_align_celeba"):
        (folder / name).mkdir(parents=True)
    (folder / "Anno" / "list_attr_celeba.txt").write_text(
        f"3\n{heads} \n000001.jpg {first}\n000002.jpg -1  1 -1\n000003.jpg  1  1  1\n"
    )
    (folder / "Anno" / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 12\n000003.jpg 12\n")
    (folder / "Eval" / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    for k in (1, 2, 3):
        (folder / "Img" / "img_align_celeba" / f"00000{k}.jpg").write_bytes(PICTURE)
    return f"celeba:{folder}"


def test_faces_of_celeba(tmp_path: Path) -> None:
    data = read_data(celeba(tmp_path))
    faces = [row for row in data.examples if row.image is not None]
    assert [row.group for row in faces] == ["female", "male", "male"]
    assert [row.attributes["outcome"] for row in faces] == ["yes", "no", "yes"]
    assert [row.attributes["age"] for row in faces] == ["young", "not young", "young"]
    assert [row.attributes["partition"] for row in faces] == ["train", "validation", "test"]
    assert [row.attributes["cluster"] for row in faces] == ["2880", "12", "12"]
    texts = {row.prompt: row.attributes["outcome"] for row in data.examples if row.image is None}
    assert texts == {"a photo of a celebrity with blond hair": "yes", "a photo of a celebrity with dark hair": "no"}
    assert SUITE.applies(data)
    assert not data.test_only


def test_the_list_that_others_made_a_table_of(tmp_path: Path) -> None:
    (tmp_path / "list_attr_celeba.csv").write_text("image_id,Blond_Hair,Male,Young\n000001.jpg,-1,1,-1\n")
    (tmp_path / "list_eval_partition.csv").write_text("image_id,partition\n000001.jpg,2\n")
    (tmp_path / "000001.jpg").write_bytes(PICTURE)
    face = read_data(f"celeba:{tmp_path}").examples[0]
    assert face.attributes == {
        "gender": "male", "age": "not young", "outcome": "no", "partition": "test", "groups_by": "annotators",
    }  # fmt: skip


def test_a_value_that_is_no_sign_and_a_short_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"row 1 has a Male of 2 \(1 or -1\)"):
        read_data(celeba(tmp_path / "one", first="1 2 1"))
    with pytest.raises(BadData, match=r"has 3 values for 000001\.jpg and 4 names"):
        read_data(celeba(tmp_path / "other", heads="Bald Blond_Hair Male Young"))
