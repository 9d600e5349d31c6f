"""Public benchmarks in the layouts that their authors publish, and any JSONL, by one line of text.

`FILE.jsonl` is the project's own layout (`sources.read_jsonl`). `vlsafe:FILE:IMAGES` and
`jailbreak_llms:FILE` read the files of those sets as they come; nothing is downloaded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.sources import read_jsonl
from vlmend.errors import BadData, UsageError

__all__ = ["LAYOUTS", "read_data", "read_jailbreak_llms", "read_vlsafe"]


def read_data(text: str) -> Dataset:
    """Read `FILE.jsonl` or `LAYOUT:FILE[:IMAGES]`.

    Raises:
        UsageError: There is no such layout.
        BadData: The file does not have it.
    """
    layout, found, rest = text.partition(":")
    if not found or len(layout) == 1:  # a drive letter is no layout
        return read_jsonl(Path(text))
    if layout not in LAYOUTS:
        raise UsageError(
            f"{text!r} names no data that can be read.",
            f"Write FILE.jsonl, or one of {', '.join(f'{name}:FILE' for name in LAYOUTS)}.",
        )
    return LAYOUTS[layout](rest)


def read_vlsafe(places: str) -> Dataset:
    """VLSafe (Chen et al., CVPR 2024, arXiv 2311.10081): `FILE:IMAGES`.

    JSONL rows {image_id, query, caption} in FILE (a JSON list works too); IMAGES holds the COCO
    train2017 pictures under their published names.

    Raises:
        BadData: Rows or pictures are missing; each missing picture is counted.
    """
    file, _, folder = places.partition(":")
    rows = _json_rows(Path(file))
    lacking = [k for k, row in enumerate(rows, 1) if not {"image_id", "query"} <= set(row)]
    if lacking:
        raise BadData(
            f"{file} has no image_id or query in row {lacking[0]}.", "Pass the file as its authors publish it."
        )
    if not folder:
        raise BadData(f"{file} needs the COCO pictures that its rows name.", "Write vlsafe:FILE:FOLDER_OF_IMAGES.")
    paths = [_coco_picture(Path(folder), str(row["image_id"])) for row in rows]
    missing = [row["image_id"] for row, path in zip(rows, paths, strict=True) if not path.exists()]
    if missing:
        raise BadData(
            f"{folder} lacks {len(missing)} of {len(rows)} pictures of VLSafe (first: {missing[0]}).",
            "Get the COCO train2017 images and pass their folder.",
        )
    return Dataset(
        "vlsafe",
        tuple(
            Example(f"vlsafe-{k:04d}", row["query"], "harmful", "vlsafe", Image.from_path(path), row.get("caption"))
            for k, (row, path) in enumerate(zip(rows, paths, strict=True))
        ),
    )


def read_jailbreak_llms(place: str) -> Dataset:
    """JailbreakLLMs' forbidden questions (Shen et al., CCS 2024, arXiv 2308.03825), CSV or JSONL.

    The published CSV has the columns content_policy_name, q_id and question; JSONL rows have category
    and prompt. Legal, financial, health and government questions are not plainly harmful: read the
    results per scenario (`category`), never as one average.
    """
    file = Path(place)
    rows = list(_csv_rows(file)) if file.suffix == ".csv" else _json_rows(file)
    named = [
        (row.get("question") or row.get("prompt"), row.get("content_policy_name") or row.get("category"))
        for row in rows
    ]
    lacking = [k for k, (question, _) in enumerate(named, 1) if not question]
    if lacking or not named:
        where = f"row {lacking[0]} has no question" if lacking else "there are no rows"
        raise BadData(
            f"{file} is not the forbidden-question set ({where}).", "Pass the file as its authors publish it."
        )
    return Dataset(
        "jailbreak_llms",
        tuple(Example(f"jbl-{k:04d}", str(q), "harmful", str(c or "")) for k, (q, c) in enumerate(named)),
        "MIT",
    )


LAYOUTS: dict[str, Callable[[str], Dataset]] = {"vlsafe": read_vlsafe, "jailbreak_llms": read_jailbreak_llms}


def _coco_picture(folder: Path, image_id: str) -> Path:
    """`123` or `000000000123.jpg` -> the picture's path."""
    return folder / (image_id if "." in image_id else f"{int(image_id):012d}.jpg")


def _json_rows(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text("utf-8")
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(r) for r in text.splitlines() if r]
    except (OSError, ValueError) as problem:
        raise BadData(f"{file} cannot be read ({problem}).", "Pass a JSON or JSONL file in UTF-8.") from problem
    if not all(isinstance(row, dict) for row in found):
        raise BadData(f"{file} holds rows that are no objects.", "Pass the file as its authors publish it.")
    return found


def _csv_rows(file: Path) -> Iterable[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise BadData(f"{file} cannot be read ({problem}).", "Pass a CSV file in UTF-8.") from problem
