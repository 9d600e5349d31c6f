"""Samples in pictures, side by side, each with the number that every run gives it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vlmend.core.images import Image
from vlmend.errors import SampleError
from vlmend.report.compare import Run, Shown

__all__ = ["KINDS", "Beside", "data_uri", "hidden", "side_by_side"]

LARGEST_IMAGE = 64_000
"""Bytes of an image file that is put on a page as it is; a larger one is made smaller first."""

SIDE = 256
"""Longest side in pixels of an image that was made smaller."""

KINDS = {".webp": "webp", ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


class Beside(NamedTuple):
    """A sample on the page: its pictures as data URIs under their captions, and a value of each run that has it."""

    text: str
    measure: str
    pictures: list[tuple[str, str]]
    values: list[tuple[str, str]]


def side_by_side(runs: Sequence[Run], *, users: bool) -> dict[str, list[Beside]]:
    """Of each suite the samples that the first run with pictures of them chose, the worst first.

    Args:
        runs: Those of the page.
        users: Show pictures of the users' own data too; those may be of people.
    """
    found: dict[str, list[Beside]] = {}
    for run in runs:
        for suite, rows in run.shown.items():
            if suite not in found and (users or not _of_users(run)):
                found[suite] = [one for row in rows if (one := _beside(suite, row, runs)).pictures]
    return {suite: rows for suite, rows in found.items() if rows}


def hidden(runs: Sequence[Run]) -> int:
    """Samples of the users' own data whose pictures are kept and not shown unasked."""
    return sum(len(rows) for run in runs[:1] if _of_users(run) for rows in run.shown.values())


def _of_users(run: Run) -> bool:
    return run.card.provenance.get("data") is not None


def _beside(suite: str, row: Shown, runs: Sequence[Run]) -> Beside:
    pictures = [(told, uri) for told, file in row.pictures if (uri := _file_uri(file))]
    values = [(run.name, told) for run in runs if (told := _value(suite, row, run))]
    return Beside(row.text, row.by.replace("_", " "), pictures, values)


def _value(suite: str, shown: Shown, run: Run) -> str:
    """What a run found of the very sample; "" where it has none."""
    measure = next((row for row in run.card if (row.suite, row.name) == (suite, shown.by)), None)
    own = next((one.get("values", {}) for one in run.measured.get(suite, []) if one["id"] == shown.id), {})
    return measure.written(own[shown.by]) if measure is not None and shown.by in own else ""


def _file_uri(file: Path | None) -> str:
    try:
        return "" if file is None else data_uri(Image.from_path(file), KINDS.get(file.suffix.lower()))
    except SampleError:
        return ""


def data_uri(image: Image, kind: str | None) -> str:
    """The file as it is where it is small, or a smaller copy.

    Raises:
        SampleError: It cannot be read.
    """
    content = image.content
    if kind is None or len(content) > LARGEST_IMAGE:
        small, buffer = image.decode(), io.BytesIO()
        small.thumbnail((SIDE, SIDE))
        small.save(buffer, "WEBP", quality=80)
        kind, content = "webp", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
