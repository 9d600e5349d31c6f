"""Clinical pictures with what is known of the patients, for audits of fairness: Harvard-FairVLMed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Row
from vlmend.errors import BadData

__all__ = ["ADAPTERS"]

CODES: Mapping[str, tuple[str, ...]] = {
    "race": ("Asian", "Black", "White"),
    "gender": ("female", "male"),
    "ethnicity": ("non-Hispanic", "Hispanic"),
    "language": ("English", "Spanish", "other"),
    "glaucoma": ("no", "yes"),
}
"""What the numbers of the files mean, from 0; -1 is unknown."""

SAID = {"yes": "A photo of glaucoma", "no": "A photo of non-glaucoma"}
"""The authors' zero-shot texts."""

TITLE = "Harvard-FairVLMed, fundus pictures with notes, diagnosis and groups of patients"

HOW = "Ask for the folder that its repository links, and pass it or one of Training, Validation and Testing."


def _rows(folder: Path) -> list[Row]:
    """The two texts, then a row a file."""
    files = sorted(folder.glob("**/data_*.npz"))
    if not files:
        raise BadData(f"{folder} is not {TITLE}: it holds no data_*.npz.", HOW)
    return [*({"said": said, "glaucoma": answer} for answer, said in SAID.items()), *map(_row, files)]


def _row(file: Path) -> Row:
    try:
        with np.load(file, allow_pickle=False) as held:
            codes = {name: int(held[name].item()) for name in CODES if name in held}
            pixels = np.asarray(held["slo_fundus"], np.float64)
            note = str(held["note"].item()) if "note" in held else ""
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadData(f"{file} is no file of Harvard-FairVLMed ({problem}).", HOW) from problem
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    name = f"{file.parent.name}/{file.stem}"
    return {"id": name, "note": note, "picture": buffer.getvalue(), **{k: _meant(k, v) for k, v in codes.items()}}


def _meant(name: str, code: int) -> str:
    """The group of a code; "" where it is unknown."""
    return CODES[name][code] if 0 <= code < len(CODES[name]) else ""


def _fairvlmed(row: Row, place: Place) -> Sequence[Draft] | str:
    del place
    answer = str(row.get("glaucoma", ""))
    if not answer:
        return "no diagnosis"
    if "said" in row:
        return [Draft(str(row["said"]), id=f"text:{answer}", attributes={"outcome": answer})]
    told = {name: str(row[name]) for name in CODES if name != "glaucoma" and row.get(name)}
    picture: bytes = row["picture"]
    return [
        Draft("", id=str(row["id"]), held=picture, caption=str(row["note"]) or None,
              attributes={"outcome": answer, **told})
    ]  # fmt: skip


ADAPTERS = (
    Adapter(
        name="fairvlmed",
        kind="fairness",
        title=TITLE,
        paper="Luo et al., FairCLIP, CVPR 2024",
        repository="https://github.com/Harvard-Ophthalmology-AI-Lab/FairCLIP",
        licence="CC BY-NC-ND 4.0, research only",
        files=("**/data_*.npz",),
        convert=_fairvlmed,
        how=HOW,
        pictures="needed",
        caution="never for clinical decisions; the notes are of real patients, so keep them where the licence lets you",
        unlabelled=None,
        walk=_rows,
    ),
)
