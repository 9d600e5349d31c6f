"""Readers of data files: JSONL rows to a `Dataset`, with every bad row named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.data.requests import Kind, builtin_requests
from vlmend.errors import BadData

__all__ = ["builtin_dataset", "read_jsonl"]

SHOWN = 5
"""Bad rows that an error lists in full."""


class _Row(BaseModel):
    """One row: `{"prompt": ..., "label": "harmful"|"benign", "image": path}` and what else is known."""

    model_config = ConfigDict(extra="ignore")

    prompt: str
    label: Literal["harmful", "benign"]
    image: str | None = None
    id: str | int | None = None
    category: str = ""
    caption: str | None = None
    answers: tuple[str, ...] = ()


def read_jsonl(file: Path) -> Dataset:
    """Read labelled requests; image paths count from the file's folder and are opened when asked.

    Raises:
        BadData: The file cannot be read, holds no row, or holds rows that are not requests.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadData(f"{file} cannot be read ({problem}).", "Pass a JSONL file in UTF-8.") from problem
    examples: list[Example] = []
    bad: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples.append(_example(_Row.model_validate_json(line), number, file))
        except ValidationError as problem:
            first = problem.errors()[0]
            bad.append(f"line {number}: {'.'.join(map(str, first['loc'])) or 'row'}: {first['msg']}")
    doubled = len(examples) - len({example.id for example in examples})
    if bad or doubled or not examples:
        what = "; ".join(bad[:SHOWN]) or (f"{doubled} ids occur twice" if doubled else "no rows")
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadData(
            f"{file} is no set of labelled requests ({what}{more}).",
            'Each line is {"prompt": "...", "label": "harmful" or "benign", "image": path or absent}.',
        )
    return Dataset(file.stem, tuple(examples))


def builtin_dataset(kinds: tuple[Kind, ...], split: Split) -> Dataset:
    """Built-in requests of one split as a data set: what mends are fitted on where no data is given."""
    examples = tuple(
        Example(r.id, r.prompt, "harmful" if kind == "harmful" else "benign", r.category)
        for kind in kinds
        for r in builtin_requests(kind, split)
    )
    return Dataset(f"builtin-{'-'.join(kinds)}-{split}", examples, "Apache-2.0")


def _example(row: _Row, number: int, file: Path) -> Example:
    image = None if row.image is None else Image.from_path(file.parent / row.image)
    name = str(row.id) if row.id is not None else f"row-{number}"
    return Example(name, row.prompt, row.label, row.category, image, row.caption, row.answers)
