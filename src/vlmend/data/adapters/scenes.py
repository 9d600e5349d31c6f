"""Scenes with people of several groups and texts that praise or blame: PATA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.connotations import ABOUT, BAD, CONNOTATION, GOOD, SCENE
from vlmend.data.rows import Row, beside, listed_rows, rows_of
from vlmend.errors import BadData

__all__ = ["ADAPTERS"]

TITLE = "PATA, scenes with people of several groups and texts that praise or blame"

HOW = (
    "Clone the repository and fetch the linked pictures into one folder, each called by its line (00001.jpg); take the "
    "lines whose links are dead out of the list, and count what is left of each group."
)

CAPTIONS, LIST = "pata_fairness.captions.json", "pata_fairness.files.lst"

KINDS = {"pos": GOOD, "neg": BAD}

ABOUTS = {"races": "race", "gender": "gender", "age": "age"}

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def _rows(folder: Path) -> list[Row]:
    """A row a text and a row a picture."""
    lines = folder / LIST
    if not lines.is_file() or not (folder / CAPTIONS).is_file():
        raise BadData(f"{folder} is not {TITLE}: it lacks {CAPTIONS} or {LIST}.", HOW)
    texts = [text for scene in rows_of(folder / CAPTIONS, listed_rows) for text in _texts(scene)]
    listed = lines.read_text("utf-8").splitlines()
    return [*texts, *({"line": k, "listed": line} for k, line in enumerate(listed, 1) if line.strip())]


def _texts(scene: Row) -> Iterator[Row]:
    for kind, connotation in KINDS.items():
        held = cast("Mapping[str, Sequence[Any]]", scene.get(kind) or {})
        for name, about in ABOUTS.items():
            for text in held.get(name, ()):
                yield {"text": str(text), SCENE: str(scene["short"]), ABOUT: about, CONNOTATION: connotation}


def _pata(row: Row, place: Place) -> Sequence[Draft] | str:
    """A text, or a line "scene_race_gender_age|link", where a scene may have "_" in it."""
    del place
    if "text" in row:
        told = {name: str(row[name]) for name in (SCENE, ABOUT, CONNOTATION)}
        return [Draft(str(row["text"]), id=":".join((*told.values(), str(row["text"]))), attributes=told)]
    label, _, link = str(row["listed"]).partition("|")
    parts = label.strip().rsplit("_", 3)
    if len(parts) != 4 or not link.strip():
        return "no scene, race, gender, age and link"
    number = f"{row['line']:05d}"
    told: dict[str, str] = dict(zip((SCENE, "race", "gender", "age"), parts, strict=True))
    names = (*(number + suffix for suffix in SUFFIXES), *beside(link.rpartition("/")[2].partition("?")[0].strip()))
    return [Draft("", id=number, pictures=names, attributes=told)]


ADAPTERS = (
    Adapter(
        name="pata",
        kind="fairness",
        title=TITLE,
        paper="Seth, Hemani, Agarwal, CVPR 2023, arXiv 2303.10431",
        repository="https://github.com/pata-fairness/pata_dataset",
        licence="none stated",
        files=(CAPTIONS,),
        convert=_pata,
        how=HOW,
        pictures="needed",
        caution=(
            "groups are as searched for and perceived, links die unequally by group and some lead to pornography, and "
            "the texts hold slurs on purpose"
        ),
        unlabelled=None,
        walk=_rows,
    ),
)
