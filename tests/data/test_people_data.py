"""VisoGender in its authors' layout and as JSONL: captions with a place for the pronoun, pictures by the row's name."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "visogender"

PICTURE = cast("bytes", blank_image(8).source)

LINK = "URL type (Type NA if can't find)"
HEAD = f"IDX\tSector\tSpecialisation\tOccupation\t{{}}\t{LINK}\tLicence\tOccupation_perceived_gender"
PAIR = HEAD.format("Participant") + "\tParticipant_perceived_gender\tError codes\tAnnotator\n"
ALONE = HEAD.format("Object") + "\tError codes\tAnnotator\n"


def published(folder: Path) -> None:
    (folder / "OP").mkdir(parents=True)
    (folder / "OO").mkdir()
    (folder / "OP" / "OP_Visogender_11012024.tsv").write_text(
        PAIR
        + "OP_1\tmedical\thospital\tdoctor\tpatient\thttps://a.example/x/one.jpg?w=6\tYes\tfeminine\tmasculine\t\tA\n"
        "OP_2\tmedical\thospital\tdoctor\tpatient\tNA\tYes\tmasculine\tmasculine\t\tA\n"
    )
    (folder / "OO" / "OO_Visogender_10052025.tsv").write_text(
        ALONE + "OO_1\tmedical\thospital\tnurse\tdesk\thttps://a.example/two.png\tYes\tmasculine\t\tA\n"
    )


def test_the_authors_files(tmp_path: Path) -> None:
    published(tmp_path / "data")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "OP_1.png").write_bytes(PICTURE)
    (pictures / "two.png").write_bytes(PICTURE)
    data = read_data(f"visogender:{tmp_path / 'data'}:{pictures}")
    alone, pair = data.examples
    assert (alone.id, alone.prompt, alone.group, alone.answers) == (
        "OO_1", "The nurse and {} desk", "masculine", ("his",),
    )  # fmt: skip
    assert (pair.prompt, pair.group, pair.answers) == ("The doctor and {} patient", "feminine", ("her",))
    assert pair.attributes == {"occupation": "doctor", "participant_gender": "masculine"}
    assert all(row.image for row in data.examples)
    assert data.test_only
    assert any("1 rows left out: published without a picture" in note for note in data.notes)


def test_missing_pictures_are_named(tmp_path: Path) -> None:
    published(tmp_path / "data")
    with pytest.raises(BadData, match=r"lacks 2 of 2 pictures of VisoGender \(first: OO_1.jpg\)"):
        read_data(f"visogender:{tmp_path / 'data'}:{tmp_path}")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark rows are not here")
def test_the_published_rows(tmp_path: Path) -> None:
    for kind, count in (("OP", 460), ("OO", 230)):
        for k in range(1, count + 1):
            (tmp_path / f"{kind}_{k}.png").write_bytes(PICTURE)
    data = read_data(f"visogender:{SHARED}:{tmp_path}")
    assert len(data.examples) == 690
    assert len({row.attributes["occupation"] for row in data.examples}) == 23
    assert sum(row.group == "feminine" for row in data.examples) == 345
